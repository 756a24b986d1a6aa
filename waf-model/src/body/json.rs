//! JSON to values: every leaf, duplicates and empty containers included, without recursion.

use std::borrow::Cow;

use super::Outcome;
use crate::{
    decode::js_number,
    values::{Collector, Finding, Location},
};

/// Whether `input` can only be JSON if it is anything: an object or an array.
pub(super) fn starts(input: &[u8]) -> bool {
    matches!(without_mark(input).trim_ascii_start(), [b'{' | b'[', ..])
}

/// Adds every leaf of the documents in `input`; returns the outcome and the number of documents.
pub(super) fn collect<'a>(input: &'a [u8], out: &mut Collector<'a>) -> (Outcome, usize) {
    let mut walk = Walk {
        rest: without_mark(input),
        path: Vec::new(),
        alias: ALIAS.to_vec(),
        frames: Vec::new(),
        keys: Vec::new(),
        documents: 0,
        odd: false,
        out,
    };
    let outcome = match walk.run() {
        Outcome::Clean if walk.odd => Outcome::Broken,
        outcome => outcome,
    };
    // What a broken document ended in still has keys to compare.
    while walk.close() {}
    (outcome, walk.documents)
}

fn without_mark(input: &[u8]) -> &[u8] {
    input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input)
}

/// What the names of JSON leaves start with in rules.
const ALIAS: &[u8] = b"json";

struct Walk<'a, 'c> {
    rest: &'a [u8],
    /// Name of the current leaf.
    path: Vec<u8>,
    /// What rules call it: with the index of each array item, `json.order.items.0.sku`.
    alias: Vec<u8>,
    frames: Vec<Frame>,
    /// The keys so far of every open object, outermost first.
    keys: Vec<Cow<'a, [u8]>>,
    documents: usize,
    /// Whether something was accepted that strict parsers refuse.
    odd: bool,
    out: &'c mut Collector<'a>,
}

/// An open object or array.
struct Frame {
    array: bool,
    /// The index of the current item of an array.
    item: usize,
    /// Length of the path of the container itself, and of its alias.
    path: usize,
    alias: usize,
    /// Where its keys start.
    keys: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstItem,
    FirstKey,
    Key,
    After,
}

impl<'a> Walk<'a, '_> {
    fn run(&mut self) -> Outcome {
        let mut state = State::Value;
        loop {
            self.rest = after_space(self.rest);
            let Some((byte, tail)) = self.rest.split_first() else {
                let done = state == State::After && self.frames.is_empty();
                return if done { Outcome::Clean } else { Outcome::Cut };
            };
            if self.out.is_full() {
                return Outcome::Clean;
            }
            state = match (state, byte) {
                (State::FirstItem, b']') | (State::FirstKey, b'}') => {
                    // An empty container has no leaf of its own, but its name must be seen.
                    self.rest = tail;
                    if let Some(frame) = self.frames.last()
                        && frame.path > 0
                    {
                        self.path.truncate(frame.path);
                        self.alias.truncate(frame.alias);
                        self.leaf(Cow::Borrowed(b""));
                    }
                    self.close();
                    State::After
                }
                (State::Value | State::FirstItem, b'{' | b'[') => {
                    self.rest = tail;
                    if self.frames.len() >= self.out.limits().depth {
                        self.out.note(Finding::TooDeep);
                        return Outcome::Doubtful;
                    }
                    self.open(*byte == b'[')
                }
                (State::Value | State::FirstItem, b'"') => {
                    let (value, closed) = self.string(tail);
                    self.leaf(value);
                    if !closed {
                        return Outcome::Cut;
                    }
                    State::After
                }
                (State::Value | State::FirstItem, _) => {
                    let length = self.rest.iter().take_while(|byte| is_scalar(**byte)).count();
                    let (value, after) = self.rest.split_at_checked(length).unwrap_or((self.rest, b""));
                    if value.is_empty() {
                        return Outcome::Broken;
                    }
                    self.rest = after;
                    self.leaf(Cow::Borrowed(value));
                    if !matches!(value, b"true" | b"false" | b"null") && !is_number(value) {
                        return if after.is_empty() { Outcome::Cut } else { Outcome::Broken };
                    }
                    State::After
                }
                (State::FirstKey | State::Key, b'"') => match self.key(tail) {
                    Ok(()) => State::Value,
                    Err(outcome) => return outcome,
                },
                (State::After, b',') if !self.frames.is_empty() => {
                    self.rest = tail;
                    self.next_item()
                }
                (State::After, b'}' | b']') => {
                    if self.frames.last().is_none_or(|frame| frame.array != (*byte == b']')) {
                        return Outcome::Broken;
                    }
                    self.rest = tail;
                    self.close();
                    State::After
                }
                (State::After, _) if self.frames.is_empty() => State::Value,
                _ => return Outcome::Broken,
            };
            if state == State::After && self.frames.is_empty() {
                self.documents += 1;
            }
        }
    }

    fn open(&mut self, array: bool) -> State {
        let (path, alias) = (self.path.len(), self.alias.len());
        self.frames.push(Frame { array, item: 0, path, alias, keys: self.keys.len() });
        if array {
            self.path.extend_from_slice(b"[]");
            self.alias.extend_from_slice(b".0");
            State::FirstItem
        } else {
            State::FirstKey
        }
    }

    /// What follows a comma; the alias of an array's item ends with its index.
    fn next_item(&mut self) -> State {
        let Some(frame) = self.frames.last_mut().filter(|frame| frame.array) else { return State::Key };
        frame.item += 1;
        self.alias.truncate(frame.alias);
        self.alias.push(b'.');
        self.alias.extend_from_slice(frame.item.to_string().as_bytes());
        State::Value
    }

    /// Closes the innermost container, if there is one, and looks for repeats among its keys.
    fn close(&mut self) -> bool {
        let Some(frame) = self.frames.pop() else { return false };
        self.path.truncate(frame.path);
        self.alias.truncate(frame.alias);
        if let Some(keys) = self.keys.get_mut(frame.keys..) {
            keys.sort_unstable();
            if keys.array_windows().any(|[one, next]| one == next) {
                self.out.note(Finding::DuplicateJsonKey);
            }
        }
        self.keys.truncate(frame.keys);
        true
    }

    fn leaf(&mut self, value: Cow<'a, [u8]>) {
        self.out.push_alias(Location::Json, Cow::Owned(self.path.clone()), self.alias.clone(), value);
    }

    /// Reads a key after its opening quote, and the colon, and makes it part of the path.
    fn key(&mut self, input: &'a [u8]) -> Result<(), Outcome> {
        let (key, closed) = self.string(input);
        let base = self.frames.last().map_or(0, |frame| frame.path);
        self.path.truncate(base);
        self.alias.truncate(self.frames.last().map_or(ALIAS.len(), |frame| frame.alias));
        self.alias.push(b'.');
        self.alias.extend_from_slice(&key);
        if base > 0 {
            self.path.push(b'.');
        }
        self.path.extend_from_slice(&key);
        self.keys.push(key);
        self.rest = after_space(self.rest);
        match self.rest {
            [b':', tail @ ..] if closed => {
                self.rest = tail;
                Ok(())
            }
            rest => {
                // A name without a value is still a name that was sent.
                self.leaf(Cow::Borrowed(b""));
                Err(if rest.is_empty() { Outcome::Cut } else { Outcome::Broken })
            }
        }
    }

    /// Reads a string after its opening quote; the flag says whether the closing one was there.
    fn string(&mut self, input: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
        let mut rest = input;
        let mut value = Vec::new();
        let mut escaped = false;
        loop {
            let at = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            let (plain, mark) = rest.split_at_checked(at).unwrap_or((rest, b""));
            self.odd |= plain.iter().any(|byte| *byte < b' ');
            if !escaped && !matches!(mark, [b'\\', ..]) {
                self.rest = mark.get(1..).unwrap_or_default();
                return (Cow::Borrowed(plain), !mark.is_empty());
            }
            escaped = true;
            value.extend_from_slice(plain);
            rest = match mark {
                [b'\\', b'u', b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]
                    if let Some((code, tail)) = js_number(mark) =>
                {
                    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    tail
                }
                [b'\\', letter, tail @ ..] => {
                    value.push(match letter {
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'"' | b'\\' | b'/' => *letter,
                        _ => {
                            self.odd = true;
                            *letter
                        }
                    });
                    tail
                }
                [b'"', tail @ ..] => {
                    self.rest = tail;
                    return (Cow::Owned(value), true);
                }
                _ => {
                    self.rest = b"";
                    return (Cow::Owned(value), false);
                }
            };
        }
    }
}

/// JSON has four kinds of white space.
fn after_space(input: &[u8]) -> &[u8] {
    let length = input.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    input.get(length..).unwrap_or_default()
}

/// Whether `byte` can be part of a number or literal, or of what is written in place of one.
fn is_scalar(byte: u8) -> bool {
    !matches!(byte, b',' | b']' | b'}' | b'[' | b'{' | b'"' | b':') && !byte.is_ascii_whitespace()
}

fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (mantissa, exponent) =
        match memchr::memchr2(b'e', b'E', text).and_then(|at| text.split_at_checked(at)) {
            Some((mantissa, exponent)) => (mantissa, exponent.get(1..)),
            None => (text, None),
        };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa).and_then(|at| mantissa.split_at_checked(at))
    {
        Some((whole, fraction)) => (whole, fraction.get(1..)),
        None => (mantissa, None),
    };
    let unsigned = |text: &[u8]| digits(text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text));
    digits(whole)
        && (whole.len() == 1 || whole.first() != Some(&b'0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(unsigned)
}
