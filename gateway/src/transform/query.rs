//! Changes to query arguments. What is not named stays as it is written, in its place.

use http::{Uri, uri::InvalidUri};

use super::{Facts, Text};

/// Changes to query arguments.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Names of arguments that are taken off.
    pub remove: Vec<String>,
    /// Arguments that are set, in place of those of that name.
    pub set: Vec<(String, Text)>,
}

impl Query {
    /// The target with the changes, if there are any.
    ///
    /// # Errors
    /// It is none, or too long.
    pub fn apply(&self, uri: &Uri, facts: Facts<'_>) -> Result<Option<Uri>, InvalidUri> {
        if self.remove.is_empty() && self.set.is_empty() {
            return Ok(None);
        }
        let goes = |pair: &&str| {
            let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
            let name = name.unwrap_or_default();
            self.remove.contains(&name) || self.set.iter().any(|(set, _)| *set == name)
        };
        let mut pairs: Vec<String> = uri
            .query()
            .into_iter()
            .flat_map(|query| query.split('&'))
            .filter(|pair| !goes(pair))
            .map(str::to_owned)
            .collect();
        for (name, text) in &self.set {
            let mut pair = form_urlencoded::Serializer::new(String::new());
            pairs.push(pair.append_pair(name, &text.fill(facts)).finish());
        }
        let query = pairs.join("&");
        let target = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
        target.parse().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_change_and_the_rest_stays_as_it_is_written() {
        let query = Query {
            remove: vec!["debug".to_owned(), "a b".to_owned()],
            set: vec![("tenant".to_owned(), Text::parse("{consumer}&x").unwrap())],
        };
        let facts = Facts { request_id: "", consumer: "acme", client_address: "" };
        let changed =
            |target: &str| query.apply(&target.parse().unwrap(), facts).unwrap().unwrap().to_string();
        assert_eq!(
            changed("/x%20y?a=%41&debug=1&%64ebug&a+b=2&tenant=evil&tenan%74=evil&=&z"),
            "/x%20y?a=%41&=&z&tenant=acme%26x"
        );
        assert_eq!(changed("/"), "/?tenant=acme%26x");
        assert!(Query::default().apply(&"/?a".parse().unwrap(), facts).unwrap().is_none());
    }
}
