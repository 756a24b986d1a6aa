//! White space, and the way shells treat it.

/// Every run of white space becomes one space. `None` if there is no white space.
pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    collapse(input, b" ")
}

/// Removes white space. `None` if there is none.
pub(super) fn remove(input: &[u8]) -> Option<Vec<u8>> {
    collapse(input, b"")
}

fn collapse(input: &[u8], instead: &[u8]) -> Option<Vec<u8>> {
    if !input.iter().any(|byte| white(*byte) || *byte == 0xa0) {
        return None;
    }
    let mut output = Vec::with_capacity(input.len());
    let mut in_run = false;
    let mut rest = input;
    loop {
        // A no-break space is the pair C2 A0 in UTF-8 and A0 alone in Latin-1; inside another UTF-8 character
        // the byte A0 means nothing.
        let (blank, tail) = match rest {
            [] => break,
            [0xc2, 0xa0, tail @ ..] => (None, tail),
            [0xa0, tail @ ..] if output.last().is_none_or(u8::is_ascii) => (None, tail),
            [byte, tail @ ..] if white(*byte) => (None, tail),
            [byte, tail @ ..] => (Some(*byte), tail),
        };
        match blank {
            Some(byte) => output.push(byte),
            None if !in_run => output.extend_from_slice(instead),
            None => {}
        }
        in_run = blank.is_none();
        rest = tail;
    }
    Some(output)
}

/// White space as `isspace` of the C locale has it, which includes the vertical tab.
fn white(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

pub(super) fn trim_left(input: &[u8]) -> &[u8] {
    let start = input.iter().take_while(|byte| white(**byte)).count();
    input.get(start..).unwrap_or_default()
}

pub(super) fn trim_right(input: &[u8]) -> &[u8] {
    let end = input.iter().rev().take_while(|byte| white(**byte)).count();
    input.get(..input.len() - end).unwrap_or_default()
}

/// A command as the shell would read it: quotes, backslashes and carets gone, separators and white space one
/// space, none of it before `/` and `(`, all in lower case.
pub(super) fn command_line(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len());
    let mut in_run = false;
    for byte in input {
        match byte {
            b'"' | b'\'' | b'\\' | b'^' => {}
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if !in_run {
                    output.push(b' ');
                }
                in_run = true;
            }
            _ => {
                if in_run && matches!(byte, b'/' | b'(') {
                    output.pop();
                }
                in_run = false;
                output.push(byte.to_ascii_lowercase());
            }
        }
    }
    output
}
