//! Content codings of responses, undone for inspection alone and within bounds.

use std::{borrow::Cow, io::Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use waf_model::request::BodyExtent;

/// How many times its size a body may grow.
const MOST_GROWTH: usize = 10;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
    /// zlib data; or, as some servers send it, the same without its frame.
    Deflate,
    /// In a way that is not undone here, or more than once.
    Unknown,
}

impl Coding {
    /// The coding that `Content-Encoding` names.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let coding = match name.to_ascii_lowercase().as_slice() {
                    b"" | b"identity" => continue,
                    b"gzip" | b"x-gzip" => Self::Gzip,
                    b"deflate" => Self::Deflate,
                    _ => Self::Unknown,
                };
                found = if found == Self::Identity { coding } else { Self::Unknown };
            }
        }
        found
    }
}

/// The first part of what `bytes` decode to: at most `most` bytes, and at most ten times their size. The extent says
/// whether that is all; `None` if nothing can be decoded.
pub fn decode(coding: Coding, bytes: &[u8], most: usize) -> Option<(Cow<'_, [u8]>, BodyExtent)> {
    let most = most.min(bytes.len().saturating_mul(MOST_GROWTH));
    match coding {
        Coding::Identity => {
            let part = bytes.get(..most).unwrap_or(bytes);
            Some((Cow::Borrowed(part), extent(part.len() == bytes.len())))
        }
        Coding::Gzip => read(MultiGzDecoder::new(bytes), most),
        Coding::Deflate => {
            read(ZlibDecoder::new(bytes), most).or_else(|| read(DeflateDecoder::new(bytes), most))
        }
        Coding::Unknown => None,
    }
}

fn read<'a>(decoder: impl Read, most: usize) -> Option<(Cow<'a, [u8]>, BodyExtent)> {
    let mut decoded = Vec::new();
    // One byte more shows that there is more. What was read before an error stays in the buffer.
    let outcome = decoder.take(most as u64 + 1).read_to_end(&mut decoded);
    let whole = outcome.is_ok() && decoded.len() <= most;
    decoded.truncate(most);
    (whole || !decoded.is_empty()).then_some((Cow::Owned(decoded), extent(whole)))
}

fn extent(whole: bool) -> BodyExtent {
    if whole { BodyExtent::Complete } else { BodyExtent::Truncated }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use http::HeaderValue;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_header_names_one_coding() {
        for (values, expected) in [
            (&[][..], Coding::Identity),
            (&["identity"], Coding::Identity),
            (&["GZIP"], Coding::Gzip),
            (&["identity, deflate"], Coding::Deflate),
            (&["br"], Coding::Unknown),
            (&["gzip, gzip"], Coding::Unknown),
            (&["gzip", "deflate"], Coding::Unknown),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(Coding::of(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn every_coding_is_undone() {
        let text: Vec<u8> = (0..2000_u32).map(|at| (at * at % 251) as u8).collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&text).unwrap();
        for (coding, bytes) in [
            (Coding::Identity, text.clone()),
            (Coding::Gzip, gzip(&text)),
            (Coding::Gzip, [gzip(&text[..500]), gzip(&text[500..])].concat()),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Deflate, raw.finish().unwrap()),
        ] {
            assert_eq!(
                decode(coding, &bytes, 5000),
                Some((text.as_slice().into(), BodyExtent::Complete)),
                "{coding:?}"
            );
            let (part, extent) = decode(coding, &bytes, 100).unwrap();
            assert_eq!((&*part, extent), (&text[..100], BodyExtent::Truncated), "{coding:?}");
        }
        assert_eq!(decode(Coding::Unknown, &text, 5000), None);
    }

    #[test]
    fn a_bomb_and_a_broken_body_give_what_they_can() {
        let bomb = gzip(&vec![0; 50 << 20]);
        let (part, extent) = decode(Coding::Gzip, &bomb, 100 << 20).unwrap();
        assert_eq!((part.len(), extent), (bomb.len() * MOST_GROWTH, BodyExtent::Truncated));
        let cut = gzip(&(0..5000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let (part, extent) = decode(Coding::Gzip, &cut[..cut.len() / 2], 1 << 20).unwrap();
        assert!(!part.is_empty() && extent == BodyExtent::Truncated);
        assert_eq!(decode(Coding::Gzip, b"not gzip", 1000), None);
    }
}
