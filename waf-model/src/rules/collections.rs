//! What rules remember across requests: `IP`, `GLOBAL` and the other collections of `initcol`.

/// A bounded store in memory; shared by all requests.
#[derive(Debug, Default)]
pub struct Collections {}

impl Collections {
    /// A store of at most `capacity` records.
    pub fn new(_capacity: usize) -> Self {
        Self {}
    }
}
