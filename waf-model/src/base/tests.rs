//! What the base says of attacks and of ordinary values, and that what it says can be read.

use super::{file::Facts, *};
use crate::base::evidence::Sign;

fn facts() -> Facts {
    let word = |at: u32| Token(FIXED + at);
    let fixed = |text: &str| Token::fixed(text).unwrap();
    Facts {
        promise: Promise { threshold: 2.0, budget: 1e-3, confidence: 0.95, n: 3000, certified: true },
        bias: [0.5; KINDS.len()],
        usual: [0.0, 0.0, 1.0, 1.5],
        words: vec!["select".to_owned(), "union".to_owned()],
        weights: vec![
            (Evidence::Pair(word(1), word(0)), vec![(0, 3.0)]),
            (Evidence::Near(word(1), word(0)), vec![(0, 1.0), (1, 0.75)]),
            (Evidence::Token(fixed("--")), vec![(0, 0.75)]),
            (Evidence::Pair(Token::START, fixed("'")), vec![(0, 1.0)]),
            (Evidence::Sign(Sign::OddSingleQuotes), vec![(0, 0.25)]),
        ],
    }
}

fn strength(base: &Base, text: &str) -> f32 {
    base.strength(text.as_bytes(), Said::default()).get()
}

#[test]
fn a_file_reads_back_and_a_changed_one_does_not() {
    let text = facts().write();
    let base = Base::parse(&text).unwrap();
    assert_eq!((base.len(), base.promise().n), (5, 3000));
    assert!(Base::parse(&text.replace("0:3.000", "0:9.000")).unwrap_err().message.contains("checksum"));
    assert_eq!(Base::parse("").unwrap_err().line, 1);
    for (cut, _) in text.char_indices() {
        assert!(Base::parse(&text[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn evidence_adds_up_and_neither_case_nor_comments_nor_padding_take_it_away() {
    let base = Base::parse(&facts().write()).unwrap();
    for (text, expected) in [
        ("union jack mug, select size", 0.5),
        ("' UNION/**/SELECT --", 4.5),
        ("union all select", 0.5),
        ("' union select -- ", 4.5),
    ] {
        assert_eq!(strength(&base, text), expected, "{text}");
    }
    for words in [0, 1, 13, 15, 16, 17, 31, 32, 33, 500] {
        let padded = format!("{}union select{}", "lorem ipsum, ".repeat(words), " dolor sit.".repeat(words));
        assert_eq!(strength(&base, &padded), 2.5, "{words} words around it");
    }
}

#[test]
fn what_is_usual_somewhere_does_not_count_there() {
    let base = Base::parse(&facts().write()).unwrap();
    let strength = Strength::new(2.5);
    assert_eq!(base.log_odds(Location::Query, strength, Strength::default()), 2.5);
    assert_eq!(base.log_odds(Location::Header, strength, Strength::default()), 1.5);
    assert_eq!(base.log_odds(Location::Query, strength, Strength::new(2.0)), 0.5);
    assert_eq!(base.log_odds(Location::Cookie, Strength::default(), strength), 0.0);
}

#[test]
fn a_reason_names_what_was_found() {
    let base = Base::parse(&facts().write()).unwrap();
    let layers = [b"plain".as_slice(), b"' union select"];
    let reason = base.reason(Location::Query, "id", layers.into_iter()).unwrap();
    for part in ["argument `id`", "contains `union` next to `select` (3.0)", "unbalanced single quote"] {
        assert!(reason.text.contains(part), "{part} in {}", reason.text);
    }
}

#[test]
fn the_shipped_base_is_whole() {
    Base::parse(include_str!("../../base/base.model")).unwrap();
    assert!(!shipped().is_empty());
}

#[test]
fn no_word_is_an_attack_by_itself() {
    let base = shipped();
    for word in base.words.iter().map(AsRef::as_ref).chain(["test", "curl", "probe"]) {
        for text in [word.to_owned(), format!("{word}/1.0"), format!("{word}/2.31.0 (x)")] {
            let strength = base.strength(text.as_bytes(), Said::of(text.as_bytes()));
            for location in [Location::Query, Location::Header] {
                let log_odds = base.log_odds(location, strength, Strength::default());
                assert!(!base.flags(log_odds), "{text} has {log_odds}");
            }
        }
    }
}
