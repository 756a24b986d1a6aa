//! JSON as one reading only: no key twice, no depth without end.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Deepest nesting.
const DEPTH: usize = 64;

/// Most values in one document.
const VALUES: usize = 100_000;

/// Reads a document; what is wrong with it as the rule that it breaks: `syntax`, `duplicate_key`, `too_deep`,
/// `too_many_values`.
///
/// # Errors
/// It is not JSON, or can be read in more than one way, or is beyond a limit.
pub(super) fn read(bytes: &[u8]) -> Result<Value, &'static str> {
    let mut left = VALUES;
    let mut broken = "syntax";
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Strict { depth: DEPTH, left: &mut left, broken: &mut broken };
    let value = seed.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) => Err(broken),
    }
}

struct Strict<'a> {
    depth: usize,
    left: &'a mut usize,
    broken: &'a mut &'static str,
}

impl Strict<'_> {
    fn inner(&mut self) -> Strict<'_> {
        Strict { depth: self.depth.saturating_sub(1), left: self.left, broken: self.broken }
    }

    fn refuse<E: serde::de::Error>(&mut self, rule: &'static str) -> E {
        *self.broken = rule;
        E::custom(rule)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth == 0 {
            return Err(self.refuse("too_deep"));
        }
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => return Err(self.refuse("too_many_values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner())? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.inner())?;
            if map.insert(key, value).is_some() {
                return Err(self.refuse("duplicate_key"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_one_reading_and_an_end() {
        assert_eq!(read(br#"{"a": [1, -2.5, null, true, "x"]}"#).unwrap()["a"][1], -2.5);
        assert_eq!(read(br#"{"a": 1, "a": 2}"#), Err("duplicate_key"));
        assert_eq!(read(br#"{"a": {"b": 1, "\u0062": 2}}"#), Err("duplicate_key"));
        assert_eq!(read(b"{\"a\": 1} x"), Err("syntax"));
        assert_eq!(read(b"{'a': 1}"), Err("syntax"));
        assert_eq!(read(b"[1e999]"), Err("syntax"));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(nested(60).as_bytes()).is_ok());
        assert_eq!(read(nested(70).as_bytes()), Err("too_deep"));
        assert_eq!(read(nested(100_000).as_bytes()), Err("too_deep"));
        let many = format!("[{}0]", "0,".repeat(VALUES));
        assert_eq!(read(many.as_bytes()), Err("too_many_values"));
    }
}
