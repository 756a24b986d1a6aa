//! Tokens of a value after normalization: words, numbers, operators, in lower case, comments and white space gone.
//!
//! One pass, linear time, no allocation. What an attacker can vary freely folds together: case, the amount and
//! kind of white space, comments between words, digits, NUL bytes inside words, long repetitions.

/// Longest word that is told apart from others, in bytes.
pub const WORD_BYTES: usize = 24;

/// A token: one of the fixed ones, or a word of a vocabulary (from [`FIXED`] on).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

/// How the tokens that are classes read; none can be mistaken for text of a value.
const CLASSES: [&str; 14] = [
    "«start»",
    "«end»",
    "«word»",
    "«name»",
    "«long»",
    "«foreign»",
    "«number»",
    "«hex»",
    "«on…»",
    "«line end»",
    "«comment»",
    "«NUL»",
    "«control»",
    "«invalid»",
];

impl Token {
    /// Before the first token of a value.
    pub const START: Self = Self(0);
    /// After the last.
    pub const END: Self = Self(1);
    /// Letters that the vocabulary does not know.
    const WORD: Self = Self(2);
    /// Letters, digits and underscores.
    const NAME: Self = Self(3);
    /// A word or name longer than [`WORD_BYTES`].
    const LONG: Self = Self(4);
    /// A word with letters beyond ASCII.
    const FOREIGN: Self = Self(5);
    /// Digits.
    const NUMBER: Self = Self(6);
    /// `0x` and hexadecimal digits.
    const HEX: Self = Self(7);
    /// An unknown word that could be the name of an event handler.
    const HANDLER: Self = Self(8);
    const LINE_END: Self = Self(9);
    const COMMENT: Self = Self(10);
    const NUL: Self = Self(11);
    const CONTROL: Self = Self(12);
    /// Bytes that are not UTF-8.
    const INVALID: Self = Self(13);
}

/// Operators of more than one character; of those that start alike, the longest first.
const OPERATORS: [&str; 44] = [
    "../", "..\\", "...", "..", "<!--", "-->", "--", "->", "/*", "*/", "//", "/>", "||", "&&", "&#", "</",
    "<?", "<%", "<=", "<>", "<<", "?>", "%>", "%{", ">=", ">>", "{{", "}}", "{%", "${", "$(", "#{", "://",
    "::", ":=", "==", "=>", "!=", "@@", "@{", "\\x", "\\u", "[[", "]]",
];

/// First token of the operators; before them are the classes.
const FIRST_OPERATOR: u32 = CLASSES.len() as u32;

/// First token of single ASCII punctuation characters, by their code.
const FIRST_CHARACTER: u32 = FIRST_OPERATOR + OPERATORS.len() as u32;

/// Number of fixed tokens: classes, operators, and ASCII characters by themselves.
pub const FIXED: u32 = FIRST_CHARACTER + 128;

impl Token {
    /// The fixed token that reads `text`.
    pub fn fixed(text: &str) -> Option<Self> {
        let at = |list: &[&str], first: u32| {
            list.iter().position(|known| *known == text).map(|at| Self(first + at as u32))
        };
        at(&CLASSES, 0).or_else(|| at(&OPERATORS, FIRST_OPERATOR)).or_else(|| match text.as_bytes() {
            [byte] if byte.is_ascii_punctuation() => Some(Self(FIRST_CHARACTER + u32::from(*byte))),
            _ => None,
        })
    }

    /// How a fixed token reads; `None` for words of a vocabulary.
    pub fn text(self) -> Option<String> {
        let Self(id) = self;
        let at = |list: &[&str], first: u32| {
            list.get(usize::try_from(id.checked_sub(first)?).ok()?).map(|text| (*text).to_owned())
        };
        at(&CLASSES, 0).or_else(|| at(&OPERATORS, FIRST_OPERATOR)).or_else(|| {
            let code = u8::try_from(id.checked_sub(FIRST_CHARACTER)?).ok()?;
            code.is_ascii_punctuation().then(|| char::from(code).to_string())
        })
    }

    /// Whether it lies between other tokens without parting them.
    pub fn is_soft(self) -> bool {
        (Self::LINE_END.0..=Self::CONTROL.0).contains(&self.0)
    }

    /// Whether it is a word of a vocabulary.
    pub fn is_known_word(self) -> bool {
        self.0 >= FIXED
    }
}

/// Reads `text` token by token, without [`Token::START`] and [`Token::END`]. `word` looks a lower-case word up.
pub fn scan(text: &[u8], mut word: impl FnMut(&[u8]) -> Option<Token>, mut each: impl FnMut(Token)) {
    let mut rest = text;
    let mut comments = true;
    let mut repeated = (Token::START, 0u8);
    while let Some(&byte) = rest.first() {
        let (token, length) = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => read_word(rest, &mut word),
            b'0' if matches!(rest, [_, b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit()) => {
                (Some(Token::HEX), 2 + run(rest.get(2..).unwrap_or_default(), u8::is_ascii_hexdigit))
            }
            b'0'..=b'9' => (Some(Token::NUMBER), run(rest, u8::is_ascii_digit)),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                let length = run(rest, |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c));
                let spaces = rest.get(..length).unwrap_or_default();
                let line_end = spaces.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
                (line_end.then_some(Token::LINE_END), length)
            }
            0 => (Some(Token::NUL), run(rest, |byte| *byte == 0)),
            1..=31 | 127 => (Some(Token::CONTROL), 1),
            _ => {
                let body = rest.strip_prefix(b"/*").filter(|body| comments && body.first() != Some(&b'!'));
                match body.map(|body| memchr::memmem::find(body, b"*/")) {
                    Some(Some(end)) => (Some(Token::COMMENT), end + 4),
                    end => {
                        // Where one comment does not end, no later one does: looked for once.
                        comments &= end.is_none();
                        read_operator(rest)
                    }
                }
            }
        };
        rest = rest.get(length.max(1)..).unwrap_or_default();
        let Some(token) = token else { continue };
        repeated = if token == repeated.0 { (token, repeated.1.saturating_add(1)) } else { (token, 0) };
        if repeated.1 < 2 {
            each(token);
        }
    }
}

fn run(text: &[u8], belongs: impl Fn(&u8) -> bool) -> usize {
    text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len())
}

/// The operators that begin with each ASCII character, one bit each.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop stays inside")]
static BEGINNING: [u64; 128] = {
    let mut beginning = [0; 128];
    let mut at = 0;
    while at < OPERATORS.len() {
        beginning[OPERATORS[at].as_bytes()[0] as usize] |= 1 << at;
        at += 1;
    }
    beginning
};

fn read_operator(text: &[u8]) -> (Option<Token>, usize) {
    let Some(&byte) = text.first() else { return (None, 1) };
    let mut candidates = BEGINNING.get(usize::from(byte)).copied().unwrap_or_default();
    while candidates != 0 {
        let at = candidates.trailing_zeros();
        candidates &= candidates - 1;
        if let Some(operator) =
            OPERATORS.get(at as usize).filter(|operator| begins(text, operator.as_bytes()))
        {
            return (Some(Token(FIRST_OPERATOR + at)), operator.len());
        }
    }
    (Some(Token(FIRST_CHARACTER + u32::from(byte))), 1)
}

/// `text.starts_with(operator)`, for texts too short to be worth a call into the C library.
fn begins(text: &[u8], operator: &[u8]) -> bool {
    text.len() >= operator.len() && text.iter().zip(operator).all(|(byte, expected)| byte == expected)
}

/// Whether a byte can be a part of a word.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop stays inside")]
static WORDLY: [bool; 256] = {
    let mut wordly = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        wordly[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | 0 | 0x80..);
        byte += 1;
    }
    wordly
};

fn read_word(text: &[u8], word: &mut impl FnMut(&[u8]) -> Option<Token>) -> (Option<Token>, usize) {
    let mut lower = [0u8; WORD_BYTES];
    let mut kept = 0;
    let (mut letters, mut ascii) = (true, true);
    let length = run(text, |byte| WORDLY.get(usize::from(*byte)) == Some(&true));
    let whole = text.get(..length).unwrap_or_default();
    for byte in whole.iter().filter(|byte| **byte != 0) {
        letters &= byte.is_ascii_alphabetic();
        ascii &= byte.is_ascii();
        if let Some(cell) = lower.get_mut(kept) {
            *cell = byte.to_ascii_lowercase();
        }
        kept += 1;
    }
    let token = match lower.get(..kept) {
        _ if !ascii && std::str::from_utf8(whole).is_err() => Token::INVALID,
        _ if !ascii => Token::FOREIGN,
        None => Token::LONG,
        Some(lower) => match word(lower) {
            Some(token) => token,
            None if letters && lower.starts_with(b"on") && lower.len() >= 5 => Token::HANDLER,
            None if letters => Token::WORD,
            None => Token::NAME,
        },
    };
    (Some(token), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut tokens = Vec::new();
        let words = ["union", "select", "script", "alert", "etc"];
        let known =
            |word: &[u8]| words.iter().position(|w| w.as_bytes() == word).map(|at| Token(FIXED + at as u32));
        scan(text.as_bytes(), known, |token| {
            tokens.push(
                token.text().unwrap_or_else(|| words.get((token.0 - FIXED) as usize).unwrap().to_string()),
            );
        });
        tokens.join(" ")
    }

    #[test]
    fn what_can_be_varied_freely_folds_together() {
        for (text, expected) in [
            ("UnIoN  SELECT 1", "union select «number»"),
            ("union/**/sel\0ect\n77", "union «comment» select «line end» «number»"),
            ("/*!50000union*/", "/* ! «number» union */"),
            ("/* no end", "/* «word» «word»"),
            ("../../../../etc", "../ ../ etc"),
            ("<svg onbegin=alert(1)>", "< «word» «on…» = alert ( «number» ) >"),
            ("año 0xFF x_1", "«foreign» «hex» «name»"),
            ("\u{1}", "«control»"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let mut found = Vec::new();
        scan(b"\xff\xfe", |_| None, |token| found.push(token));
        assert_eq!(found, [Token::INVALID]);
    }

    #[test]
    fn fixed_tokens_read_as_they_are_written() {
        for id in 0..FIXED {
            let token = Token(id);
            if let Some(text) = token.text() {
                assert_eq!(Token::fixed(&text), Some(token), "{text}");
                assert!(!text.contains('\t') && !text.is_empty());
            }
        }
    }
}
