//! An external service that decides about each request: it sees the head, and answers with a status.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
    request::Parts,
};
use http_body_util::Full;
use tokio::sync::Semaphore;
use waf_model::observation::ValueKey;

use super::{
    Outcome,
    fetch::{Fetched, Fetcher},
    principal::{Findings, Principal},
};
use crate::{
    config::auth,
    error::Refusal,
    identity::{Identity, Peer},
};

/// Questions at once.
const QUESTIONS: usize = 512;

/// One external service.
#[derive(Debug)]
pub struct Forward {
    name: Arc<str>,
    settings: auth::Forward,
    site_key: ValueKey,
    fetcher: Fetcher,
    turns: Semaphore,
}

impl Forward {
    /// Makes the method ready.
    pub fn new(name: &Arc<str>, settings: &auth::Forward, site_key: &ValueKey, fetcher: &Fetcher) -> Self {
        Self {
            name: Arc::clone(name),
            settings: settings.clone(),
            site_key: *site_key,
            fetcher: fetcher.clone(),
            turns: Semaphore::new(QUESTIONS),
        }
    }

    /// What the service says about this request.
    pub async fn verify(&self, peer: &Peer, identity: &Identity, parts: &Parts) -> Outcome {
        let Ok(_turn) = self.turns.try_acquire() else { return Outcome::Unavailable };
        match self.fetcher.send(self.question(peer, identity, parts)).await {
            Ok(answer) if answer.status.is_success() => Outcome::Verified(Arc::new(self.caller(&answer))),
            Ok(answer) => match refusal(&answer) {
                Some(refusal) => Outcome::Answered(Box::new(refusal)),
                None => {
                    let status = answer.status.as_u16();
                    tracing::warn!(method = &*self.name, status, "the service that decides is in trouble");
                    Outcome::Unavailable
                }
            },
            Err(error) => {
                tracing::warn!(method = &*self.name, %error, "the service that decides cannot be asked");
                Outcome::Unavailable
            }
        }
    }

    /// Headers that only the service may write.
    pub fn owned(&self) -> &[HeaderName] {
        &self.settings.copies
    }

    fn question(&self, peer: &Peer, identity: &Identity, parts: &Parts) -> Request<Full<bytes::Bytes>> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.settings.address.clone();
        let headers = request.headers_mut();
        for name in &self.settings.sends {
            for value in parts.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let host = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        let host = host.or_else(|| Some(parts.headers.get(HOST)?.to_str().ok()?.to_owned()));
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        for (name, value) in [
            ("x-forwarded-method", Some(parts.method.as_str())),
            ("x-forwarded-proto", Some(if peer.tls.is_some() { "https" } else { "http" })),
            ("x-forwarded-host", host.as_deref()),
            ("x-forwarded-uri", Some(target)),
            ("x-forwarded-for", Some(identity.address.to_string().as_str())),
            ("x-request-id", Some(identity.request_id.as_str())),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        request
    }

    fn caller(&self, answer: &Fetched) -> Principal {
        let text = |name: &Option<HeaderName>| {
            let value = answer.headers.get(name.as_ref()?)?.to_str().ok()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        let groups = text(&self.settings.groups_header).unwrap_or_default();
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
        let findings = Findings {
            groups: groups.map(str::to_owned).collect(),
            subject: text(&self.settings.user_header),
            headers: copied(&answer.headers, &self.settings.copies),
            ..Findings::default()
        };
        Principal::new(findings, &self.name, &self.site_key)
    }
}

/// The service's own answer, where it is one for the caller.
fn refusal(answer: &Fetched) -> Option<Refusal> {
    let is_for_caller = answer.status.is_redirection()
        || matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let kept = copied(&answer.headers, &[LOCATION, SET_COOKIE, WWW_AUTHENTICATE]);
    is_for_caller.then(|| Refusal::with(answer.status, "refused_by_service", kept))
}

fn copied(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let values = names.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    values.map(|(name, value)| (name.clone(), value.clone())).collect()
}
