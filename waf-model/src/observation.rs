//! Observation: all that is learned from one request. No raw value is in it.
