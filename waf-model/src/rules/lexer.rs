//! Rule text to directives: line continuation, comments, quoted arguments.

/// One directive with its arguments, quotes removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its first line, from 1.
    pub(super) line: usize,
    /// The name as written.
    pub(super) name: String,
    /// The arguments in order.
    pub(super) arguments: Vec<String>,
    /// The comment lines directly above, without their marks, joined.
    pub(super) comment: String,
}

/// Splits `text` into directives; a mistake carries the line that the directive starts on.
///
/// A comment is one line that starts with `#`. A backslash at the end of a line joins the next one to it. Inside
/// quotes `\` followed by the same quote is that quote; every other backslash stays, so that a regular expression
/// is written as it is.
pub(super) fn lex(text: &str) -> Vec<Result<Directive, (usize, String)>> {
    logical_lines(text)
        .into_iter()
        .filter_map(|Logical { line, text, comment }| {
            let mut words = match words(&text) {
                Ok(words) => words.into_iter(),
                Err(message) => return Some(Err((line, message))),
            };
            let name = words.next()?;
            Some(Ok(Directive { line, name, arguments: words.collect(), comment }))
        })
        .collect()
}

/// A line with its continuations, and the comment above it.
struct Logical {
    line: usize,
    text: String,
    comment: String,
}

/// Lines with their continuations; comments and empty ones are left out.
fn logical_lines(text: &str) -> Vec<Logical> {
    let mut out: Vec<Logical> = Vec::new();
    let mut open: Option<Logical> = None;
    let mut comment = String::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(remark) = line.trim_start().strip_prefix('#') {
            let remark = remark.trim_start_matches('#').trim();
            if open.is_none() && !remark.is_empty() {
                comment.push_str(if comment.is_empty() { "" } else { " " });
                comment.push_str(remark);
            }
            continue;
        }
        let trimmed = line.trim_end();
        let (body, continued) = match trimmed.strip_suffix('\\') {
            Some(body) => (body, true),
            None => (trimmed, false),
        };
        let mut joined = open.take().unwrap_or_else(|| Logical {
            line: index + 1,
            text: String::new(),
            comment: std::mem::take(&mut comment),
        });
        joined.text.push_str(body);
        if continued {
            open = Some(joined);
        } else if !joined.text.trim().is_empty() {
            out.push(joined);
        }
    }
    out.extend(open.filter(|joined| !joined.text.trim().is_empty()));
    out
}

fn words(line: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let word;
        (word, rest) = match first {
            '"' | '\'' => quoted(rest, first)?,
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, rest) = rest.split_at(end);
                (word.to_owned(), rest)
            }
        };
        if rest.starts_with(|c: char| !c.is_whitespace()) {
            return Err(format!(
                "text follows the closing quote directly near `{}`; put a space between two \
                arguments, or write \\{first} for a quote inside one",
                excerpt(rest)
            ));
        }
        out.push(word);
        rest = rest.trim_start();
    }
    Ok(out)
}

/// The quoted word at the start of `text` and what follows it.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|(_, next)| *next == quote) => {
                word.push(quote);
                chars.next();
            }
            '\\' => {
                word.push('\\');
                // Two backslashes are a pair: the second one does not escape a quote after it.
                if let Some((_, next)) = chars.next_if(|(_, next)| *next == '\\') {
                    word.push(next);
                }
            }
            c if c == quote => return Ok((word, text.get(index + c.len_utf8()..).unwrap_or_default())),
            c => word.push(c),
        }
    }
    Err(format!(
        "the quote that opens `{}` is never closed; close it, or end the line with a backslash if the \
        argument goes on",
        excerpt(text)
    ))
}

/// The first characters of `text`, for messages.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directive(line: usize, words: &[&str]) -> Result<Directive, (usize, String)> {
        let mut words = words.iter().map(|word| (*word).to_owned());
        let name = words.next().unwrap_or_default();
        Ok(Directive { line, name, arguments: words.collect(), comment: String::new() })
    }

    #[test]
    fn lines_join_and_comments_vanish() {
        let text = "# one\n\nSecRule ARGS \\\n  \"@rx a\\\"b\\d\" \\\n   'id:1'\n  # two\nSecMarker END";
        assert_eq!(
            lex(text),
            [
                directive(3, &["SecRule", "ARGS", "@rx a\"b\\d", "id:1"]),
                directive(7, &["SecMarker", "END"])
                    .map(|found| Directive { comment: "two".to_owned(), ..found }),
            ]
        );
    }

    #[test]
    fn double_backslash_before_a_quote_closes() {
        assert_eq!(lex(r#"A "x\\" B"#), [directive(1, &["A", r"x\\", "B"])]);
    }

    #[test]
    fn mistakes_name_the_line() {
        let found = lex("SecMarker A\nSecRule ARGS \"open\nSecRule \"a\"b");
        assert_eq!(found.iter().filter_map(|r| r.as_ref().err()).map(|e| e.0).collect::<Vec<_>>(), [2, 3]);
    }
}
