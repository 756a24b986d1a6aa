//! What of an attack may be the attack: not the client that sent it, nor the form it was sent by.
//!
//! Files of attacks are recorded with one tool or against one page, and its user agent, referer and other parameters
//! are in every line. Whoever counts them learns to know the tool.

use std::collections::HashMap;

use super::corpus::{Corpus, Request};

/// Kinds of attack in which one and the same text stands around the attack instead of being it.
const KINDS: u32 = 3;

/// Every text of the chosen requests, and whose it is.
#[derive(Debug, Default)]
pub struct Spoken {
    /// Whether a harmless request has the text, and the kinds of the attacks that have it, as bits.
    texts: HashMap<u32, (bool, u16)>,
}

impl Spoken {
    /// Counts who sends each text.
    pub fn new(chosen: &[&Request]) -> Self {
        let mut spoken = Self::default();
        for request in chosen {
            for text in &request.texts {
                let (harmless, kinds) = spoken.texts.entry(*text).or_default();
                match request.attack {
                    true => *kinds |= 1 << request.kind,
                    false => *harmless = true,
                }
            }
        }
        spoken
    }

    /// The texts of an attack that may be what makes it one: none that harmless requests hold too or that goes with
    /// many kinds; arguments if there are any, then the path, then the rest.
    pub fn of(&self, corpus: &Corpus, attack: &Request) -> Vec<u32> {
        let own = |text: &u32| {
            let (harmless, kinds) = self.texts.get(text).copied().unwrap_or_default();
            !harmless && kinds.count_ones() < KINDS
        };
        let at = |wanted: fn(usize) -> bool| -> Vec<u32> {
            attack.texts.iter().filter(|text| wanted(corpus.place(**text)) && own(text)).copied().collect()
        };
        [at(|place| place == 1), at(|place| place == 0), at(|place| place > 1)]
            .into_iter()
            .find(|texts| !texts.is_empty())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use waf_model::{injection::Said, values::Location};

    use super::*;
    use crate::base::corpus::Text;

    fn request(attack: bool, kind: u8, texts: &[u32]) -> Request {
        Request {
            attack,
            family: "",
            kind,
            file: 0,
            group: 0,
            payload: 0,
            generated: false,
            browsing: false,
            texts: texts.to_vec(),
            points: 0,
        }
    }

    #[test]
    fn a_tool_that_sends_attacks_of_many_kinds_is_none_of_them() {
        let text = |location| Text { location, bytes: b"x".as_slice().into(), said: Said::default() };
        let [tool, known, argument, path, field] =
            [Location::Header, Location::Query, Location::Query, Location::Path, Location::Header].map(text);
        let mut corpus = Corpus::default();
        corpus.texts.extend([tool, known, argument, path, field]);
        let requests = [
            request(true, 0, &[0, 1, 2, 3]),
            request(true, 1, &[0, 1, 3]),
            request(true, 2, &[0, 1, 4]),
            request(true, 2, &[0]),
            request(false, 0, &[1]),
        ];
        let spoken = Spoken::new(&requests.iter().collect::<Vec<_>>());
        let of = requests.iter().map(|request| spoken.of(&corpus, request)).collect::<Vec<_>>();
        assert_eq!(of[..4], [vec![2], vec![3], vec![4], vec![]]);
    }
}
