//! Every transformation on a table of inputs, on all short inputs, and on arbitrary ones.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use proptest::prelude::*;

use super::{NAMES, Transformation, base64_text, html_text, js_text, percent_text};

/// Name of the transformation, input, expected output.
type Case = (&'static str, &'static [u8], &'static [u8]);

fn check(cases: &[Case]) {
    for (name, input, expected) in cases {
        let transformation = Transformation::from_name(name).unwrap();
        let output = transformation.apply(input);
        let shown = (String::from_utf8_lossy(input), String::from_utf8_lossy(&output));
        assert_eq!(&*output, *expected, "{name}: {shown:?}");
        assert_eq!(matches!(output, Cow::Borrowed(_)), output == *input, "{name}: {shown:?}: borrowed");
    }
}

#[test]
fn percent() {
    check(&[
        ("urlDecode", b"", b""),
        ("urlDecode", b"plain", b"plain"),
        ("urlDecode", b"a+b%20c%2", b"a b c%2"),
        ("urlDecode", b"%zz%%41%4", b"%zz%A%4"),
        ("urlDecode", b"%u0041", b"%u0041"),
        ("urlDecode", b"%2541", b"%41"),
        ("urlDecodeUni", b"%u0041%u00e9+%U0042", b"A\xe9 B"),
        ("urlDecodeUni", b"%uff1cscript%uFF1E", b"<script>"),
        ("urlDecodeUni", b"%u00zz%u004%41", b"%u00zz%u004A"),
        ("urlEncode", b"a b*c/\xff", b"a+b*c%2f%ff"),
    ]);
}

#[test]
fn html() {
    check(&[
        ("htmlEntityDecode", b"a & b &", b"a & b &"),
        ("htmlEntityDecode", b"&lt;&GT&quot;&amp;amp;", b"<>\"&amp;"),
        ("htmlEntityDecode", b"&#60;&#x3C;&#060&#X3c|", b"<<<<|"),
        ("htmlEntityDecode", b"&#0000000000000000106;s", b"js"),
        ("htmlEntityDecode", b"javascript&colon;alert&lpar;1&rpar;", b"javascript&colon;alert&lpar;1&rpar;"),
        ("htmlEntityDecode", b"&colonel &#; &#x; &unknown;", b"&colonel &#; &#x; &unknown;"),
        ("htmlEntityDecode", b"&nbsp;&#xe9;&#x4e2d;", b"\xa0\xe9\xe4\xb8\xad"),
        ("htmlEntityDecode", b"&#99999999999999999999;", b"\xef\xbf\xbd"),
    ]);
}

#[test]
fn escapes() {
    check(&[
        ("jsDecode", br"\u003c\x3e\74\a\b\f\n\r\t\v\q\'", b"<><\x07\x08\x0c\n\r\t\x0bq'"),
        ("jsDecode", br"\uff1c\u{3c}\377\400\0", b"<<\xff\x200\0"),
        ("jsDecode", br"\u00\xz\u{}\", br"u00xzu{}\"),
        ("cssDecode", br"\6a\000061 v\41\n\", b"javAn"),
        ("cssDecode", b"\\ja\\\nv\\0000611", b"java1"),
        ("cssDecode", br"\ff1c \00ff1c", b"<<"),
        ("escapeSeqDecode", br"\a\101\x41\X42\\\?\'\q\", b"\x07AAB\\?'\\q\\"),
        ("escapeSeqDecode", br"\x4\xzz\8", br"\x4\xzz\8"),
    ]);
}

#[test]
fn base64_and_hex() {
    check(&[
        ("base64Decode", b"VGVzdENhc2U=", b"TestCase"),
        ("base64Decode", b"VGVzdENhc2U", b"TestCase"),
        ("base64Decode", b"VGVz\x00dENhc2U=", b"Tes"),
        ("base64Decode", b"<", b""),
        ("base64DecodeExt", b"VG.Vz\ndE Nhc2U=", b"TestCase"),
        ("base64Encode", b"TestCase", b"VGVzdENhc2U="),
        ("base64Encode", b"\xfb\xff", b"+/8="),
        ("base64Encode", b"abc", b"YWJj"),
        ("base64Encode", b"a", b"YQ=="),
        ("base64Encode", b"", b""),
        ("hexDecode", b"414243", b"ABC"),
        ("hexDecode", b"4", b""),
        ("hexDecode", b"41 42", b"41 42"),
        ("hexEncode", b"AB\xff", b"4142ff"),
        ("sha1", b"abc", b"\xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9d"),
        ("sha1", b"", b"\xda\x39\xa3\xee\x5e\x6b\x4b\x0d\x32\x55\xbf\xef\x95\x60\x18\x90\xaf\xd8\x07\x09"),
        (
            "sha1",
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            b"\x84\x98\x3e\x44\x1c\x3b\xd2\x6e\xba\xae\x4a\xa1\xf9\x51\x29\xe5\xe5\x46\x70\xf1",
        ),
    ]);
}

#[test]
fn paths() {
    check(&[
        ("normalizePath", b"", b""),
        ("normalisePath", b"/a/b/../c", b"/a/c"),
        ("normalizePath", b"//a///b/./c/", b"/a/b/c/"),
        ("normalizePath", b"/../../etc/passwd", b"/etc/passwd"),
        ("normalizePath", b"a/../../b", b"../b"),
        ("normalizePath", b"a/..", b""),
        ("normalizePath", b"/a/..", b"/"),
        ("normalizePath", b"./", b""),
        ("normalizePath", b".././", b"../"),
        ("normalizePath", b"...", b"..."),
        ("normalizePath", br"a\..\b", br"a\..\b"),
        ("normalizePathWin", br"\a\..\b\\c/d\", b"/b/c/d/"),
    ]);
}

#[test]
fn spaces() {
    check(&[
        ("none", b" A ", b" A "),
        ("lowercase", b"aBC\xc9", b"abc\xc9"),
        ("uppercase", b"aBc", b"ABC"),
        ("compressWhitespace", b" a\t\n\x0bb ", b" a b "),
        ("compressWhitespace", b"a\xc2\xa0\xc2\xa0b\xa0c\xc3\xa0", b"a b c\xc3\xa0"),
        ("removeWhitespace", b" a\r\nb\xa0 ", b"ab"),
        ("removeNulls", b"a\0b\0", b"ab"),
        ("replaceNulls", b"a\0b", b"a b"),
        ("trim", b" \t a b \n", b"a b"),
        ("trim", b"   ", b""),
        ("trimLeft", b"  a ", b"a "),
        ("trimRight", b"  a ", b"  a"),
        ("length", b"0123456789", b"10"),
        ("length", b"", b"0"),
        ("cmdLine", br#"C^a't "/etc\/passwd"; ,ls  /x (y"#, b"cat/etc/passwd ls/x(y"),
    ]);
}

#[test]
fn comments() {
    check(&[
        ("replaceComments", b"a/* x */b/**/c/*d", b"a b c "),
        ("replaceComments", b"a*/b/ *", b"a*/b/ *"),
        ("replaceComments", b"/*/ x */y", b" y"),
        ("removeComments", b"a/* x */b<!-- y -->c", b"abc"),
        ("removeComments", b"a -- b", b"a "),
        ("removeComments", b"a # b", b"a "),
        ("removeComments", b"a/*b", b"a "),
        ("removeComments", b"a-b*c", b"a-b*c"),
        ("removeCommentsChar", b"a/*b*/c<!--d-->e--f#g", b"abcdefg"),
    ]);
}

#[test]
fn unicode() {
    check(&[
        ("utf8toUnicode", b"abc", b"abc"),
        ("utf8toUnicode", "é中".as_bytes(), b"%u00e9%u4e2d"),
        ("utf8toUnicode", "😀".as_bytes(), b"%u1f600"),
        ("utf8toUnicode", b"\xc0\xaf\xff\xc3", b"%u002f\xff\xc3"),
    ]);
}

#[test]
fn second_decodings_are_text() {
    let text = |found: Option<Vec<u8>>| found.map(|bytes| String::from_utf8(bytes).unwrap());
    let cases: [(Option<Vec<u8>>, Option<&str>); 13] = [
        (percent_text(b"100% + 5%"), None),
        (percent_text(b"a%2Bb+c%u4e2d%uff1c"), Some("a+b+c中<")),
        (html_text(b"Tom & Jerry"), None),
        (html_text(b"caf&#xe9; &lt;"), Some("café <")),
        (html_text(b"javascript&colon;alert&lpar;1&rpar;"), Some("javascript:alert(1)")),
        (js_text(br"C:\temp\new"), None),
        (js_text(br"\u4e2d\ud83d\ude00\x3c"), Some("中😀<")),
        (js_text(br"\ud83d"), Some("\u{fffd}")),
        (base64_text(b"PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg=="), Some("<script>alert(1)</script>")),
        (base64_text(b"PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg="), None),
        (base64_text(b"deadbeefdeadbeef"), None),
        (base64_text(b"administrator"), None),
        (base64_text(b"YWJjZGVmZ2hpamts"), None),
    ];
    for (found, expected) in cases {
        assert_eq!(text(found).as_deref(), expected);
    }
}

#[test]
fn names() {
    assert_eq!(Transformation::from_name("URLDECODEUNI"), Some(Transformation::UrlDecodeUni));
    assert_eq!(Transformation::from_name("normalisePathWin"), Some(Transformation::NormalizePathWin));
    for unknown in ["", "md5", "urldecode ", "t:none"] {
        assert_eq!(Transformation::from_name(unknown), None, "{unknown:?}");
    }
}

#[test]
fn short_inputs() {
    const SAMPLE: &[u8] =
        b"\0\t\n !\"#%&'()*+-./01789:;<>?@AFGXUZ\\^_`adfghlntuvxz{}\x7f\x80\xa0\xbf\xc0\xc2\xe0\xef\xf0\xff";
    let mut inputs: Vec<Vec<u8>> = vec![Vec::new()];
    for length in 0..3 {
        let shorter: Vec<_> = inputs.iter().filter(|input| input.len() == length).cloned().collect();
        // Three bytes from a third of the sample: all combinations that start an escape are among them.
        let step = if length == 2 { 3 } else { 1 };
        for input in shorter {
            inputs.extend(SAMPLE.iter().step_by(step).map(|byte| [input.as_slice(), &[*byte]].concat()));
        }
    }
    for start in [&b"%u"[..], b"\\u", b"\\x", b"&#", b"&#x", b"/*", b"<!-", b"%", b"\\", b"\\u{"] {
        inputs.extend(SAMPLE.iter().map(|byte| [start, &[*byte]].concat()));
    }
    for (name, transformation) in NAMES {
        for input in &inputs {
            let output = transformation.apply(input);
            assert!(output.len() <= 20.max(4 * input.len()), "{name}: {input:?}");
        }
    }
}

proptest! {
    #[test]
    fn total_and_bounded(input in proptest::collection::vec(any::<u8>(), 0..200), escapes in "[%u0-9a-f&#x;\\\\{}/*<!.-]{0,80}") {
        for input in [input.as_slice(), escapes.as_bytes()] {
            for (_, transformation) in NAMES {
                let output = transformation.apply(input);
                prop_assert!(output.len() <= 20.max(4 * input.len()));
                prop_assert_eq!(matches!(output, Cow::Borrowed(_)), *output == *input);
            }
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself(input in proptest::collection::vec(any::<u8>(), 0..100)) {
        for (encode, decode) in [
            (Transformation::Base64Encode, Transformation::Base64Decode),
            (Transformation::Base64Encode, Transformation::Base64DecodeExt),
            (Transformation::HexEncode, Transformation::HexDecode),
            (Transformation::UrlEncode, Transformation::UrlDecode),
        ] {
            let encoded = encode.apply(&input);
            let decoded = decode.apply(&encoded);
            prop_assert_eq!(&*decoded, input.as_slice());
        }
    }
}
