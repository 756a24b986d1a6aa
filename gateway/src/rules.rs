//! The built-in rule set: the one place that names its files.

use waf_model::rules::RuleSource;

/// Our own rules, in the order in which they are read.
pub const BUILT_IN: &[RuleSource<'static>] = &[];
