//! What may be kept of a name or a path segment: a word stays, whatever could be a value becomes its class.
