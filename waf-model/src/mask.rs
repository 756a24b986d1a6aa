//! Masked fragments: what an operator may see of a value without seeing the value.

/// Shows the structure of `fragment`: punctuation and words of attack languages stay, everything else becomes
/// `*`. At most [`FRAGMENT_CHARS`] characters.
pub fn mask(fragment: &[u8]) -> String {
    let _ = fragment;
    String::new()
}

/// Longest masked fragment, in characters.
pub const FRAGMENT_CHARS: usize = 120;
