//! Comments of C, HTML, SQL and shells.

/// Every C comment becomes one space; one without an end reaches to the end of the input.
pub(super) fn replace(input: &[u8]) -> Option<Vec<u8>> {
    let mut at = memchr::memmem::find(input, b"/*");
    at?;
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((plain, comment)) = at.and_then(|at| rest.split_at_checked(at)) {
        output.extend_from_slice(plain);
        output.push(b' ');
        let body = comment.get(2..).unwrap_or_default();
        rest = match memchr::memmem::find(body, b"*/") {
            Some(end) => body.get(end + 2..).unwrap_or_default(),
            None => &[],
        };
        at = memchr::memmem::find(rest, b"/*");
    }
    output.extend_from_slice(rest);
    Some(output)
}

/// Removes C and HTML comments; `--` and `#` hide all that follows. A comment without an end leaves a space.
pub(super) fn remove(input: &[u8]) -> Option<Vec<u8>> {
    if !possible(input) {
        return None;
    }
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    loop {
        let inside = match rest {
            [] | [b'-', b'-', ..] | [b'#', ..] => break,
            [b'/', b'*', inside @ ..] | [b'<', b'!', b'-', b'-', inside @ ..] => inside,
            [byte, tail @ ..] => {
                output.push(*byte);
                rest = tail;
                continue;
            }
        };
        rest = match end(inside) {
            Some(tail) => tail,
            None => {
                output.push(b' ');
                break;
            }
        };
    }
    Some(output)
}

/// What follows the first `*/` or `-->`; either ends either kind of comment.
fn end(inside: &[u8]) -> Option<&[u8]> {
    let mut rest = inside;
    loop {
        rest = match rest {
            [] => return None,
            [b'*', b'/', tail @ ..] | [b'-', b'-', b'>', tail @ ..] => return Some(tail),
            [_, tail @ ..] => tail,
        };
    }
}

/// Removes the marks of comments and keeps their text.
pub(super) fn remove_marks(input: &[u8]) -> Option<Vec<u8>> {
    if !possible(input) {
        return None;
    }
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    loop {
        rest = match rest {
            [] => break,
            [b'/', b'*', tail @ ..]
            | [b'*', b'/', tail @ ..]
            | [b'<', b'!', b'-', b'-', tail @ ..]
            | [b'-', b'-', b'>', tail @ ..]
            | [b'-', b'-', tail @ ..]
            | [b'#', tail @ ..] => tail,
            [byte, tail @ ..] => {
                output.push(*byte);
                tail
            }
        };
    }
    Some(output)
}

/// Whether any mark can be there.
fn possible(input: &[u8]) -> bool {
    memchr::memchr3(b'*', b'-', b'#', input).is_some()
}
