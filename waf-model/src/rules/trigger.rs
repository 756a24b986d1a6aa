//! When a transformation can change a text at all, told from the classes of the bytes in it.

use super::literals::{ANY, byte_mask};
use crate::decode::Transformation;

/// The byte classes of which a text must have one for `step` to change it; [`ANY`] is in the mask of every text.
pub(super) fn trigger(step: Transformation) -> u64 {
    use Transformation as T;
    let of = |bytes: &[u8]| bytes.iter().fold(0, |mask, byte| mask | byte_mask(*byte));
    let blank = of(b" ");
    let high = byte_mask(u8::MAX);
    match step {
        T::None => 0,
        T::Lowercase => of(b"A"),
        T::Uppercase => of(b"a"),
        T::UrlDecode | T::UrlDecodeUni => of(b"%+"),
        T::HtmlEntityDecode => of(b"&"),
        T::JsDecode | T::CssDecode | T::EscapeSeqDecode => of(b"\\"),
        T::RemoveNulls | T::ReplaceNulls => of(b"\0"),
        T::CompressWhitespace | T::RemoveWhitespace => blank | high,
        T::RemoveComments | T::RemoveCommentsChar | T::ReplaceComments => of(b"/*-#"),
        T::CmdLine => blank | of(b"\\\"'^,;A"),
        T::NormalizePath => of(b"/."),
        T::NormalizePathWin => of(b"/\\."),
        T::Utf8ToUnicode => high,
        T::Trim | T::TrimLeft | T::TrimRight => blank,
        _ => ANY,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::prefilter::mask_of, *};
    use crate::decode;

    proptest! {
        #[test]
        fn what_is_not_triggered_changes_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..12),
            text in "[a-zA-Z0-9 ./*#%&\\\\'\"^,;+-]{0,16}",
        ) {
            for input in [bytes.as_slice(), text.as_bytes()] {
                for step in decode::ALL {
                    if mask_of(input) & trigger(step) == 0 {
                        let output = step.apply(input).into_owned();
                        prop_assert_eq!(output.as_slice(), input, "{:?}", step);
                    }
                }
            }
        }
    }
}
