//! Changes to fields of JSON, in its text: what is not named stays as it is written, numbers and order included.

use serde::de::IgnoredAny;

/// Deepest nesting that is changed.
const DEEPEST: usize = 128;

/// What stands in the place of text that is masked.
const MASK: &[u8] = b"\"***\"";

/// Changes to fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    paths: Vec<Edit>,
    /// Fields that are masked wherever they stand; case does not matter.
    masked: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    steps: Vec<Step>,
    change: Change,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The member of this name, or the item of an array with this number.
    Key(String),
    /// Every member or item.
    Any,
}

/// What becomes of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It becomes this JSON, and is made if it is not there.
    Set(String),
    /// It is taken out.
    Remove,
    /// It gets another name, and takes the place of what has that name.
    Rename(String),
    /// Text becomes `***`, anything else null.
    Mask,
}

/// Why a body cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

impl Edits {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.masked.is_empty()
    }

    /// Masks fields of this name, wherever they stand.
    pub fn mask_name(&mut self, name: &str) {
        self.masked.push(name.to_owned());
    }

    /// Adds a change of what `pointer` names: a JSON pointer (RFC 6901) in which `*` stands for every member or item.
    ///
    /// # Errors
    /// It is no such pointer, or names the whole document.
    pub fn add(&mut self, pointer: &str, change: Change) -> Result<(), String> {
        let wrong = || format!("{pointer:?} is not a JSON pointer; write it as /order/items/*/price");
        let steps = pointer.strip_prefix('/').filter(|rest| !rest.is_empty()).ok_or_else(wrong)?;
        let step = |text: &str| match text {
            "*" => Step::Any,
            text => Step::Key(text.replace("~1", "/").replace("~0", "~")),
        };
        let steps: Vec<Step> = steps.split('/').map(step).collect();
        if matches!((steps.last(), &change), (Some(Step::Any), Change::Rename(_))) {
            return Err(format!("{pointer:?}: every member cannot have the same name"));
        }
        self.paths.push(Edit { steps, change });
        Ok(())
    }

    /// `text` with the changes.
    ///
    /// # Errors
    /// It is not one JSON document, or nested too deeply.
    pub fn apply(&self, text: &[u8]) -> Result<Vec<u8>, NotJson> {
        // What follows relies on its being valid.
        serde_json::from_slice::<IgnoredAny>(text).map_err(|_| NotJson)?;
        let mut walk = Walk { text, at: 0, out: Vec::with_capacity(text.len()), edits: self, depth: 0 };
        let active: Vec<Active> = (0..self.paths.len()).map(|edit| Active { edit, step: 0 }).collect();
        walk.value(&active)?;
        Ok(walk.out)
    }
}

/// A change whose path leads here, up to this step.
#[derive(Debug, Clone, Copy)]
struct Active {
    edit: usize,
    step: usize,
}

/// A walk over valid JSON that writes it anew.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    edits: &'a Edits,
    depth: usize,
}

/// What becomes of one member or item.
#[derive(Default)]
struct Fate<'a> {
    removed: bool,
    masked: bool,
    set: Option<&'a str>,
    name: Option<&'a str>,
    inner: Vec<Active>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, active: &[Active]) -> Result<(), NotJson> {
        self.blank();
        if active.is_empty() && self.edits.masked.is_empty() {
            return self.copy();
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(NotJson);
        }
        match self.peek() {
            Some(b'{') => self.object(active)?,
            Some(b'[') => self.array(active)?,
            _ => self.copy()?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self, active: &[Active]) -> Result<(), NotJson> {
        let displaced = self.displaced(active)?;
        let mut met = vec![false; active.len()];
        self.at += 1;
        self.out.push(b'{');
        let mut is_first = true;
        while self.next_item(b'}')? {
            let key = self.string()?;
            let name: String = serde_json::from_slice(key).map_err(|_| NotJson)?;
            self.blank();
            self.expect(b':')?;
            let mut fate = self.fate(active, &name, &mut met);
            fate.masked |= self.edits.masked.iter().any(|masked| masked.eq_ignore_ascii_case(&name));
            fate.removed |= fate.name.is_none() && displaced.contains(&name);
            if fate.removed {
                self.blank();
                self.skip()?;
                continue;
            }
            self.comma(&mut is_first);
            match fate.name {
                Some(name) => self.write_key(name)?,
                None => {
                    self.out.extend_from_slice(key);
                    self.out.push(b':');
                }
            }
            self.member(&fate)?;
        }
        for (active, _) in active.iter().zip(met).filter(|(_, met)| !met) {
            self.missing(*active, &mut is_first)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn array(&mut self, active: &[Active]) -> Result<(), NotJson> {
        self.at += 1;
        self.out.push(b'[');
        let mut met = vec![false; active.len()];
        let (mut is_first, mut index) = (true, 0_usize);
        while self.next_item(b']')? {
            let fate = self.fate(active, &index.to_string(), &mut met);
            index += 1;
            if fate.removed {
                self.blank();
                self.skip()?;
                continue;
            }
            self.comma(&mut is_first);
            self.member(&fate)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// What the changes that lead here mean for the member or item `name`.
    fn fate(&self, active: &[Active], name: &str, met: &mut [bool]) -> Fate<'a> {
        let mut fate = Fate::default();
        for (place, met) in active.iter().zip(met) {
            let Some(edit) = self.edits.paths.get(place.edit) else { continue };
            let is_meant = match edit.steps.get(place.step) {
                Some(Step::Key(key)) => key == name,
                Some(Step::Any) => true,
                None => false,
            };
            if !is_meant {
                continue;
            }
            *met = true;
            if place.step + 1 < edit.steps.len() {
                fate.inner.push(Active { step: place.step + 1, ..*place });
                continue;
            }
            match &edit.change {
                Change::Set(value) => fate.set = Some(value),
                Change::Remove => fate.removed = true,
                Change::Rename(name) => fate.name = Some(name),
                Change::Mask => fate.masked = true,
            }
        }
        fate
    }

    /// Writes the value of a member or item.
    fn member(&mut self, fate: &Fate<'_>) -> Result<(), NotJson> {
        self.blank();
        let Some(new) = fate.set.map(str::as_bytes).or_else(|| fate.masked.then(|| self.mask())) else {
            return self.value(&fate.inner);
        };
        self.skip()?;
        self.out.extend_from_slice(new);
        Ok(())
    }

    fn mask(&self) -> &'static [u8] {
        if self.peek() == Some(b'"') { MASK } else { b"null" }
    }

    /// Names that renamed members of the object here take over, where these members are there.
    fn displaced(&mut self, active: &[Active]) -> Result<Vec<String>, NotJson> {
        let renamed = active.iter().filter_map(|place| {
            let edit = self.edits.paths.get(place.edit)?;
            match (edit.steps.get(place.step)?, &edit.change) {
                (Step::Key(key), Change::Rename(name)) if place.step + 1 == edit.steps.len() => {
                    Some((key, name))
                }
                _ => None,
            }
        });
        let renamed: Vec<_> = renamed.collect();
        if renamed.is_empty() {
            return Ok(Vec::new());
        }
        let start = self.at;
        let mut displaced = Vec::new();
        self.at += 1;
        while self.next_item(b'}')? {
            let key: String = serde_json::from_slice(self.string()?).map_err(|_| NotJson)?;
            displaced.extend(renamed.iter().filter(|(from, _)| **from == key).map(|(_, to)| (*to).clone()));
            self.blank();
            self.expect(b':')?;
            self.blank();
            self.skip()?;
        }
        self.at = start;
        Ok(displaced)
    }

    /// Makes what is to be set and is not there, with the objects around it.
    fn missing(&mut self, place: Active, is_first: &mut bool) -> Result<(), NotJson> {
        let Some(Edit { steps, change: Change::Set(value) }) = self.edits.paths.get(place.edit) else {
            return Ok(());
        };
        let steps = steps.get(place.step..).unwrap_or_default();
        let keys: Option<Vec<&str>> = steps
            .iter()
            .map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Any => None,
            })
            .collect();
        let Some(keys) = keys else { return Ok(()) };
        self.comma(is_first);
        for (index, key) in keys.iter().enumerate() {
            if index > 0 {
                self.out.push(b'{');
            }
            self.write_key(key)?;
        }
        self.out.extend_from_slice(value.as_bytes());
        self.out.resize(self.out.len() + keys.len().saturating_sub(1), b'}');
        Ok(())
    }

    fn write_key(&mut self, key: &str) -> Result<(), NotJson> {
        serde_json::to_writer(&mut self.out, key).map_err(|_| NotJson)?;
        self.out.push(b':');
        Ok(())
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.out.push(b',');
        }
    }

    /// Whether another member or item follows; otherwise the container is left.
    fn next_item(&mut self, end: u8) -> Result<bool, NotJson> {
        self.blank();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.blank();
        }
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(_) => Ok(true),
            None => Err(NotJson),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() != Some(byte) {
            return Err(NotJson);
        }
        self.at += 1;
        Ok(())
    }

    /// The string that starts here, with its quotation marks.
    fn string(&mut self) -> Result<&'a [u8], NotJson> {
        let start = self.at;
        self.expect(b'"')?;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let at = memchr::memchr2(b'"', b'\\', rest).ok_or(NotJson)?;
            self.at += at + 1;
            if rest.get(at) == Some(&b'"') {
                return self.text.get(start..self.at).ok_or(NotJson);
            }
            self.at += 1;
        }
    }

    /// Leaves the value that starts here behind.
    fn skip(&mut self) -> Result<&'a [u8], NotJson> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => drop(self.string()?),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b'}' | b']') | None if depth == 0 => break,
                None => return Err(NotJson),
                Some(_) => self.at += 1,
            }
            if depth == 0
                && matches!(self.peek(), Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') | None)
            {
                break;
            }
        }
        self.text.get(start..self.at).ok_or(NotJson)
    }

    fn copy(&mut self) -> Result<(), NotJson> {
        let value = self.skip()?;
        self.out.extend_from_slice(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn edits(list: &[(&str, Change)]) -> Edits {
        let mut edits = Edits::default();
        for (pointer, change) in list {
            edits.add(pointer, change.clone()).unwrap();
        }
        edits
    }

    #[track_caller]
    fn check(list: &[(&str, Change)], text: &str, expected: &str) {
        let found = edits(list).apply(text.as_bytes()).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(found.as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn fields_change_and_the_rest_stays_as_it_is_written() {
        use Change::{Mask, Remove, Rename, Set};
        let set = |value: &str| Set(value.to_owned());
        let rename = |name: &str| Rename(name.to_owned());
        check(&[("/a", Remove)], r#" {"a": 1, "b": 1.0e+05 , "a":2}"#, r#"{"b":1.0e+05}"#);
        check(
            &[("/a/b", Remove)],
            r#"{"c": [ 1,2 ],"a":{"b":[{"}":"]"}],"x":"\"}"}}"#,
            r#"{"c":[ 1,2 ],"a":{"x":"\"}"}}"#,
        );
        check(
            &[("/a", set("7"))],
            r#"{"b":12345678901234567890123}"#,
            r#"{"b":12345678901234567890123,"a":7}"#,
        );
        check(&[("/a", set("[1]"))], r#"{"a":{"b":1},"c":2}"#, r#"{"a":[1],"c":2}"#);
        check(&[("/x/y/z", set("1"))], r#"{"x":{}}"#, r#"{"x":{"y":{"z":1}}}"#);
        check(&[("/x/y", set("1"))], r#"{"x":5}"#, r#"{"x":5}"#);
        check(&[("/i/*/p", set("0"))], r#"{"i":[{"p":1},{},3]}"#, r#"{"i":[{"p":0},{"p":0},3]}"#);
        check(&[("/i/1", Remove)], r#"{"i":[1,2,3]}"#, r#"{"i":[1,3]}"#);
        check(&[("/old", rename("new"))], r#"{"new":1,"old":2}"#, r#"{"new":2}"#);
        check(&[("/old", rename("new"))], r#"{"new":1}"#, r#"{"new":1}"#);
        check(&[("/a~1b/~0", Remove)], r#"{"a/b":{"~":1}}"#, r#"{"a/b":{}}"#);
        check(&[("/\u{e9}", Remove)], r#"{"\u00e9":1,"\u00E9":2,"e":3}"#, r#"{"e":3}"#);
        check(&[("/*/s", Mask)], r#"{"a":{"s":"x"},"b":{"s":[1]}}"#, r#"{"a":{"s":"***"},"b":{"s":null}}"#);
        check(&[("/a", Remove)], "[1]", "[1]");
        check(&[("/a", Remove)], " 5 ", "5");
        let mut masked = Edits::default();
        masked.mask_name("iban");
        let text = r#"[{"IBAN":"DE1","x":[{"iban":{"a":1}}]}]"#;
        assert_eq!(masked.apply(text.as_bytes()).unwrap(), br#"[{"IBAN":"***","x":[{"iban":null}]}]"#);
        for text in ["", "{", "{'a':1}", r#"{"a":1} {"a":2}"#, "a=1", r#"{"a":01}"#] {
            assert_eq!(masked.apply(text.as_bytes()), Err(NotJson), "{text}");
        }
        assert_eq!(masked.apply(format!("{}1{}", "[".repeat(200), "]".repeat(200)).as_bytes()), Err(NotJson));
        for pointer in ["", "a", "/"] {
            assert!(Edits::default().add(pointer, Remove).is_err(), "{pointer}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\{}\\[\\],: ]{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect()))
            ]
        })
    }

    /// The plain meaning: what is at `/a` goes, what is at `/b/c` becomes 1 where `/b` is an object or nothing.
    fn plainly(mut value: Value) -> Value {
        if let Value::Object(map) = &mut value {
            map.remove("a");
            if let Value::Object(inner) = map.entry("b").or_insert(json!({})) {
                inner.insert("c".to_owned(), json!(1));
            }
        }
        value
    }

    proptest! {
        #[test]
        fn the_text_means_what_the_changed_value_means(value in any_json(), pretty: bool) {
            let edits = edits(&[("/a", Change::Remove), ("/b/c", Change::Set("1".to_owned()))]);
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let changed = edits.apply(text.unwrap().as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&changed).unwrap(), plainly(value));
        }

        #[test]
        fn nothing_makes_it_panic(text in "[\\[\\]{}\",:a1\\\\ u]{0,40}") {
            let edits = edits(&[("/a", Change::Rename("u".to_owned())), ("/*/a", Change::Mask)]);
            if let Ok(changed) = edits.apply(text.as_bytes()) {
                prop_assert!(serde_json::from_slice::<IgnoredAny>(&changed).is_ok());
            }
        }
    }
}
