//! File system paths without detours.

/// Removes empty segments, `.` and `..`; a back reference at the start of a relative path stays.
pub(super) fn normalize(input: &[u8]) -> Vec<u8> {
    let absolute = input.first() == Some(&b'/');
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in input.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => match segments.last() {
                Some(last) if *last != b".." => {
                    segments.pop();
                }
                None if absolute => {}
                _ => segments.push(segment),
            },
            _ => segments.push(segment),
        }
    }
    let mut output = Vec::with_capacity(input.len());
    if absolute {
        output.push(b'/');
    }
    output.extend(segments.join(&b'/'));
    if !segments.is_empty() && input.last() == Some(&b'/') {
        output.push(b'/');
    }
    output
}

/// As [`normalize`], after turning every backslash into a slash.
pub(super) fn normalize_windows(input: &[u8]) -> Vec<u8> {
    let slashes: Vec<u8> = input.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    normalize(&slashes)
}
