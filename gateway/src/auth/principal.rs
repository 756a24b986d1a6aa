//! Who a caller has proved to be, and the headers that tell the upstream.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use waf_model::{
    keys::{self, ClientKey},
    observation::ValueKey,
};

use crate::config::auth::Terms;

/// Headers by which the upstream learns who calls. Whatever a client sends under these names, or under `x-consumer-`
/// anything, in any spelling, is dropped by [`crate::identity::sanitize`].
const NAME: HeaderName = HeaderName::from_static("x-consumer-username");
const GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
const SUBJECT: HeaderName = HeaderName::from_static("x-consumer-subject");
const SCOPES: HeaderName = HeaderName::from_static("x-consumer-scopes");
const METHOD: HeaderName = HeaderName::from_static("x-consumer-method");

/// What a method of authentication found out.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Name of the consumer, if it is one of those configured.
    pub consumer: Option<Arc<str>>,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// What its token allows.
    pub scopes: Vec<String>,
    /// Whom a token speaks of, in the words of who issued it.
    pub subject: Option<String>,
    /// Everything else that a token says.
    pub claims: Arc<Map<String, Value>>,
    /// Further headers for the upstream.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether it signed the request, and with it the body.
    pub signed: bool,
}

/// A caller that has proved who it is. Made once for each credential and shared by its requests.
#[derive(Debug)]
pub struct Principal {
    findings: Findings,
    method: Arc<str>,
    key: ClientKey,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Principal {
    /// Takes over what the method named `method` found out.
    pub fn new(findings: Findings, method: &Arc<str>, site_key: &ValueKey) -> Self {
        let key = match (&findings.consumer, &findings.subject) {
            (Some(name), _) => ClientKey::Consumer(name.to_string()),
            (None, subject) => {
                // Whoever issued the subject may have meant it to be nobody else's business.
                let text = format!("{method}\0{}", subject.as_deref().unwrap_or_default());
                ClientKey::Consumer(format!("{:016x}", keys::keyed_hash(site_key, &text)))
            }
        };
        let headers = headers(&findings, method);
        Self { findings, method: Arc::clone(method), key, headers }
    }

    /// Both at once, for a route that demands several methods; `None` if they are two different consumers.
    pub fn join(&self, other: &Self) -> Option<Self> {
        let (a, b) = (&self.findings, &other.findings);
        if let (Some(a), Some(b)) = (&a.consumer, &b.consumer)
            && a != b
        {
            return None;
        }
        let both = |a: &[String], b: &[String]| {
            let more = b.iter().filter(|name| !a.contains(name));
            a.iter().chain(more).cloned().collect::<Vec<_>>()
        };
        let mut claims = Map::clone(&b.claims);
        claims.extend(a.claims.iter().map(|(name, value)| (name.clone(), value.clone())));
        let findings = Findings {
            consumer: a.consumer.clone().or_else(|| b.consumer.clone()),
            groups: both(&a.groups, &b.groups),
            scopes: both(&a.scopes, &b.scopes),
            subject: a.subject.clone().or_else(|| b.subject.clone()),
            claims: Arc::new(claims),
            headers: a.headers.iter().chain(&b.headers).cloned().collect(),
            signed: a.signed || b.signed,
        };
        let key = if a.consumer.is_none() && b.consumer.is_some() { &other.key } else { &self.key };
        let method: Arc<str> = format!("{}+{}", self.method, other.method).into();
        let headers = headers(&findings, &method);
        Some(Self { findings, key: key.clone(), headers, method })
    }

    /// The consumer's name, if it is one of those configured.
    pub fn consumer(&self) -> Option<&str> {
        self.findings.consumer.as_deref()
    }

    /// Whom its token speaks of.
    pub fn subject(&self) -> Option<&str> {
        self.findings.subject.as_deref()
    }

    /// Everything else its token says.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.findings.claims
    }

    /// Groups it belongs to.
    pub fn groups(&self) -> &[String] {
        &self.findings.groups
    }

    /// What its token allows.
    pub fn scopes(&self) -> &[String] {
        &self.findings.scopes
    }

    /// Whether it signed the request, and with it the body.
    pub fn signed(&self) -> bool {
        self.findings.signed
    }

    /// By which method it proved who it is.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The key under which evidence against it is kept.
    pub fn key(&self) -> &ClientKey {
        &self.key
    }

    /// Tells the upstream.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }

    /// Whether it is and has what is asked for.
    pub fn meets(&self, terms: &Terms) -> bool {
        let Findings { consumer, groups, scopes, claims, .. } = &self.findings;
        let is_named = |name: &String| consumer.as_deref() == Some(name.as_str());
        (terms.consumers.is_empty() || terms.consumers.iter().any(is_named))
            && (terms.groups.is_empty() || terms.groups.iter().any(|group| groups.contains(group)))
            && terms.scopes.iter().all(|scope| scopes.contains(scope))
            && terms.claims.iter().all(|(name, wanted)| claims.get(name).is_some_and(|it| says(it, wanted)))
    }
}

/// Whether a claim, or one of several, is among the wanted values.
fn says(claim: &Value, wanted: &[String]) -> bool {
    match claim {
        Value::String(text) => wanted.contains(text),
        Value::Number(_) | Value::Bool(_) => wanted.contains(&claim.to_string()),
        Value::Array(items) => items.iter().any(|item| !item.is_array() && says(item, wanted)),
        Value::Null | Value::Object(_) => false,
    }
}

fn headers(findings: &Findings, method: &str) -> Vec<(HeaderName, HeaderValue)> {
    let list = |items: &[String], separator: &str| {
        let items: Vec<String> = items.iter().map(|item| plain(item)).collect();
        (!items.is_empty()).then(|| items.join(separator))
    };
    let texts = [
        (NAME, findings.consumer.as_deref().map(plain)),
        (GROUPS, list(&findings.groups, ", ")),
        (SUBJECT, findings.subject.as_deref().map(plain)),
        (SCOPES, list(&findings.scopes, " ")),
        (METHOD, Some(plain(method))),
    ];
    let told = texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::from_str(&text?).ok()?)));
    findings.headers.iter().cloned().chain(told).collect()
}

/// Text that is one item of a header: whatever could end an item or is not printable ASCII is percent-encoded.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b',' | b'%' | b'"' | b'\\') {
            plain.push(char::from(byte));
        } else {
            plain.push_str(&format!("%{byte:02X}"));
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(consumer: Option<&str>, groups: &[&str], claims: Value) -> Principal {
        let findings = Findings {
            consumer: consumer.map(Arc::from),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            scopes: vec!["read".to_owned()],
            subject: Some("a, b\r\nx: ü".to_owned()),
            claims: Arc::new(claims.as_object().cloned().unwrap_or_default()),
            ..Findings::default()
        };
        Principal::new(findings, &"tokens".into(), &ValueKey([1; 16]))
    }

    #[test]
    fn nothing_that_a_token_says_can_forge_a_header_or_an_item_of_one() {
        let mut headers = HeaderMap::new();
        principal(Some("acme"), &["a,admin", "b"], Value::Null).write(&mut headers);
        assert_eq!(headers["x-consumer-groups"], "a%2Cadmin, b");
        assert_eq!(headers["x-consumer-subject"], "a%2C%20b%0D%0Ax:%20%C3%BC");
        assert_eq!(headers["x-consumer-username"], "acme");
    }

    #[test]
    fn terms_ask_for_one_group_all_scopes_and_all_claims() {
        let claims = serde_json::json!({"tier": "gold", "n": 3, "roles": ["a", "b"], "deep": {"a": 1}});
        let caller = principal(Some("acme"), &["partners"], claims);
        let terms = |edit: fn(&mut Terms)| {
            let mut terms = Terms::default();
            edit(&mut terms);
            caller.meets(&terms)
        };
        assert!(terms(|_| {}));
        assert!(terms(|terms| terms.groups = vec!["staff".to_owned(), "partners".to_owned()]));
        assert!(!terms(|terms| terms.groups = vec!["staff".to_owned()]));
        assert!(!terms(|terms| terms.scopes = vec!["read".to_owned(), "write".to_owned()]));
        assert!(terms(|terms| terms.consumers = vec!["acme".to_owned()]));
        assert!(!terms(|terms| terms.consumers = vec!["other".to_owned()]));
        let claim = |name: &str, value: &str| {
            let claims = vec![(name.to_owned(), vec![value.to_owned()])];
            caller.meets(&Terms { claims, ..Terms::default() })
        };
        assert!(claim("tier", "gold") && claim("n", "3") && claim("roles", "b"));
        assert!(!claim("tier", "silver") && !claim("absent", "") && !claim("deep", "1"));
    }

    #[test]
    fn two_methods_speak_of_one_caller_or_of_nobody() {
        let (a, b) = (principal(Some("acme"), &["x"], Value::Null), principal(None, &["y"], Value::Null));
        let both = a.join(&b).unwrap();
        assert_eq!((both.consumer(), both.groups().len()), (Some("acme"), 2));
        assert_eq!(b.join(&a).unwrap().key(), a.key());
        assert!(a.join(&principal(Some("other"), &[], Value::Null)).is_none());
    }
}
