//! What was seen beside what a document says.

use serde_json::{Value, json};

use super::{RawListed, callers, minute};
use crate::{cli::output::table, openapi::document::Documented};

/// One difference.
#[derive(Debug)]
pub(super) struct Difference<'a> {
    /// What it is.
    kind: Kind,
    method: &'a str,
    path: &'a str,
    /// What was seen of it, if anything was.
    seen: Option<&'a RawListed>,
}

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Undocumented,
    Deprecated,
    Unused,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Undocumented => "undocumented",
            Self::Deprecated => "deprecated",
            Self::Unused => "unused",
        }
    }
}

/// Every difference: what is called and not described, what is deprecated and called, what is described and not called.
pub(super) fn differences<'a>(documented: &'a [Documented], listed: &'a [RawListed]) -> Vec<Difference<'a>> {
    let mut undocumented = Vec::new();
    let mut deprecated = Vec::new();
    let mut used = vec![false; documented.len()];
    for one in listed {
        let fits = |known: &Documented| {
            // Who may GET may also HEAD.
            let method = known.method.as_str();
            (method == one.method || (one.method == "HEAD" && method == "GET"))
                && known.template.stands_for(&one.path)
        };
        used.iter_mut().zip(documented).for_each(|(used, known)| *used |= fits(known));
        let difference = |kind| Difference { kind, method: &one.method, path: &one.path, seen: Some(one) };
        // They are in order: what says more comes first.
        match documented.iter().find(|known| fits(known)) {
            None => undocumented.push(difference(Kind::Undocumented)),
            Some(known) if known.deprecated => deprecated.push(difference(Kind::Deprecated)),
            Some(_) => {}
        }
    }
    let unused = documented.iter().zip(used).filter(|(_, used)| !used).map(|(known, _)| Difference {
        kind: Kind::Unused,
        method: known.method.as_str(),
        path: known.template.text(),
        seen: None,
    });
    undocumented.into_iter().chain(deprecated).chain(unused).collect()
}

/// Differences as a table.
pub(super) fn table_of(differences: &[Difference<'_>]) -> String {
    if differences.is_empty() {
        return "nothing differs: what is called is described, and what is described is called".to_owned();
    }
    let rows: Vec<_> = differences
        .iter()
        .map(|difference| {
            let seen = difference.seen;
            let of = |what: &dyn Fn(&RawListed) -> String| seen.map_or_else(|| "-".to_owned(), what);
            vec![
                difference.kind.name().to_owned(),
                difference.method.to_owned(),
                difference.path.to_owned(),
                of(&|one| one.requests.to_string()),
                of(&callers),
                of(&|one| minute(&one.last_seen)),
                of(&|one| one.route.clone()),
            ]
        })
        .collect();
    table(&["DIFFERENCE", "METHOD", "PATH", "REQUESTS", "CONSUMERS", "LAST", "ROUTE"], &rows)
}

impl Difference<'_> {
    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let mut shown = json!({ "difference": self.kind.name(), "method": self.method, "path": self.path });
        if let (Some(one), Some(members)) = (self.seen, shown.as_object_mut()) {
            members.insert("route".to_owned(), one.route.clone().into());
            members.insert("requests".to_owned(), one.requests.into());
            members.insert("consumers".to_owned(), json!(one.consumers));
            members.insert("first_seen".to_owned(), one.first_seen.clone().into());
            members.insert("last_seen".to_owned(), one.last_seen.clone().into());
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::document::Document;

    #[test]
    fn what_differs_is_told_apart() {
        let text = "openapi: 3.0.3\nservers: [{url: 'https://api.example/v2'}]\npaths:\n\
                    \x20 /orders: {get: {}, post: {deprecated: true}}\n\
                    \x20 '/orders/{id}': {get: {}, delete: {}}\n\
                    \x20 /orders/latest: {get: {deprecated: true}}\n";
        let document = Document::read(text, "f").unwrap();
        let documented = document.operations(&document.base(None).unwrap());
        let seen = |method: &str, path: &str| RawListed {
            method: method.to_owned(),
            path: path.to_owned(),
            requests: 7,
            ..RawListed::default()
        };
        let listed = [
            seen("GET", "/v2/orders"),
            seen("HEAD", "/v2/orders/{int}"),
            seen("POST", "/v2/orders"),
            seen("PUT", "/v2/orders/{int}"),
            seen("GET", "/v2/orders/latest"),
            seen("GET", "/orders"),
        ];
        let differences = differences(&documented, &listed);
        let told: Vec<String> = differences
            .iter()
            .map(|one| format!("{} {} {}", one.kind.name(), one.method, one.path))
            .collect();
        assert_eq!(
            told,
            [
                "undocumented PUT /v2/orders/{int}",
                "undocumented GET /orders",
                "deprecated POST /v2/orders",
                "deprecated GET /v2/orders/latest",
                "unused DELETE /v2/orders/{id}",
            ]
        );
        assert_eq!(differences[0].to_json()["requests"], 7);
        assert!(table_of(&differences).contains("deprecated    GET"));
    }
}
