//! Content codings of requests and responses, undone for inspection alone and within bounds.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use brotli_decompressor::Decompressor;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use waf_model::request::BodyExtent;
use zstd::stream::read::Decoder;

/// How many times its size a body may grow.
const MOST_GROWTH: usize = 10;

/// To this size it may grow in any case: small texts of one kind repeat themselves much.
const FREE_GROWTH: usize = 64 * 1024;

/// Largest window that Zstandard data may ask for, as a power of two: 8 MiB, by RFC 9659.
const ZSTD_WINDOW: u32 = 23;

/// Bytes of Brotli data that are read at a time.
const BROTLI_BUFFER: usize = 4096;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
    /// zlib data; or, as some servers send it, the same without its frame.
    Deflate,
    /// Brotli.
    Brotli,
    /// Zstandard.
    Zstd,
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
                    b"br" => Self::Brotli,
                    b"zstd" => Self::Zstd,
                    _ => Self::Unknown,
                };
                found = if found == Self::Identity { coding } else { Self::Unknown };
            }
        }
        found
    }
}

/// What remains of an `Accept-Encoding` when only codings that can be undone are asked for, with their weights; one
/// that is left out may then not be used.
pub fn acceptable(accepted: &str) -> String {
    let kept: Vec<&str> = accepted.split(',').map(str::trim).filter(|entry| can_be_undone(entry)).collect();
    if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") }
}

/// Whether a part of an `Accept-Encoding`, with or without a weight, names a coding that can be undone.
pub fn can_be_undone(entry: &str) -> bool {
    let name = entry.split(';').next().unwrap_or_default().trim();
    ["gzip", "x-gzip", "deflate", "br", "zstd", "identity"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// The first part of what `bytes` decode to: at most `most` bytes, and at most ten times their size or 64 KiB. The extent says
/// whether that is all; `None` if nothing can be decoded.
pub fn decode(coding: Coding, bytes: &[u8], most: usize) -> Option<(Cow<'_, [u8]>, BodyExtent)> {
    let most = most.min(bytes.len().saturating_mul(MOST_GROWTH).max(FREE_GROWTH));
    match coding {
        Coding::Identity => {
            let part = bytes.get(..most).unwrap_or(bytes);
            Some((Cow::Borrowed(part), extent(part.len() == bytes.len())))
        }
        Coding::Gzip => read(MultiGzDecoder::new(bytes), most),
        Coding::Deflate => {
            read(ZlibDecoder::new(bytes), most).or_else(|| read(DeflateDecoder::new(bytes), most))
        }
        // A stream that begins so asks for a window of up to 1 GiB, which the coding `br` does not know.
        Coding::Brotli if bytes.first().is_some_and(|first| first & 0x7f == 0x11) => None,
        Coding::Brotli => read(Decompressor::new(bytes, BROTLI_BUFFER), most),
        Coding::Zstd => read(zstd(bytes).ok()?, most),
        Coding::Unknown => None,
    }
}

fn zstd(bytes: &[u8]) -> io::Result<Decoder<'static, &[u8]>> {
    let mut decoder = Decoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(decoder)
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

    fn brotli(mut bytes: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        brotli::BrotliCompress(&mut bytes, &mut coded, &Default::default()).unwrap();
        coded
    }

    #[test]
    fn the_header_names_one_coding() {
        for (values, expected) in [
            (&[][..], Coding::Identity),
            (&["identity"], Coding::Identity),
            (&["GZIP"], Coding::Gzip),
            (&["identity, deflate"], Coding::Deflate),
            (&["br"], Coding::Brotli),
            (&["zstd"], Coding::Zstd),
            (&["compress"], Coding::Unknown),
            (&["br, gzip"], Coding::Unknown),
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
    fn only_what_can_be_undone_is_asked_for() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd, dcb", "gzip, deflate, br, zstd"),
            ("compress;q=1.0, GZIP;q=0.8, *;q=0.1", "GZIP;q=0.8"),
            ("dcz", "identity"),
            ("*", "identity"),
            ("", "identity"),
        ] {
            assert_eq!(acceptable(accepted), expected, "{accepted}");
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
            (Coding::Brotli, brotli(&text)),
            (Coding::Zstd, zstd::encode_all(text.as_slice(), 3).unwrap()),
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
        let zeros = vec![0; 50 << 20];
        let numbers: Vec<u8> =
            (0..100_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (coding, code) in [
            (Coding::Gzip, gzip as fn(&[u8]) -> Vec<u8>),
            (Coding::Brotli, brotli),
            (Coding::Zstd, |bytes| zstd::encode_all(bytes, 3).unwrap()),
        ] {
            let bomb = code(&zeros);
            let (part, extent) = decode(coding, &bomb, 100 << 20).unwrap();
            let expected = ((bomb.len() * MOST_GROWTH).max(FREE_GROWTH), BodyExtent::Truncated);
            assert_eq!((part.len(), extent), expected, "{coding:?}");
            let cut = code(&numbers);
            let (part, extent) = decode(coding, &cut[..cut.len() / 2], 1 << 20).unwrap();
            assert!(!part.is_empty() && extent == BodyExtent::Truncated, "{coding:?}");
            assert_eq!(decode(coding, b"neither of them", 1000), None, "{coding:?}");
        }
    }

    #[test]
    fn a_window_beyond_what_the_coding_allows_is_not_made() {
        let parameters =
            brotli::enc::BrotliEncoderParams { large_window: true, lgwin: 28, ..Default::default() };
        let mut large = Vec::new();
        brotli::BrotliCompress(&mut [0_u8; 100].as_slice(), &mut large, &parameters).unwrap();
        assert_eq!(decode(Coding::Brotli, &large, 1000), None);
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[0; 100]).unwrap();
        assert_eq!(decode(Coding::Zstd, &encoder.finish().unwrap(), 1000), None);
    }
}
