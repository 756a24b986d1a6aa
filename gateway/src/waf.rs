//! Inspection of one request: values, rules, observation, score, decision.

pub mod evidence;
pub mod model_slot;
pub mod model_watch;
