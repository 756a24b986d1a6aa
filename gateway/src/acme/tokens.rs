//! What is answered to an authority that looks whether a host is ours (HTTP-01), for as long as it may look.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header, request::Parts};

use super::Acme;
use crate::{
    body::{self, Body},
    identity::Peer,
};

/// Where it looks (RFC 8555, 8.3).
const PLACE: &str = "/.well-known/acme-challenge/";

/// Answers by their tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens(RwLock<HashMap<String, String>>);

impl Tokens {
    /// Answers so until the guard is dropped.
    pub(super) fn put(&self, token: String, answer: String) -> Placed<'_> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), answer);
        Placed { tokens: self, token }
    }
}

/// An answer that is in place.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    tokens: &'a Tokens,
    token: String,
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.tokens.0.write().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

/// The answer to an authority, if the request is its own: by plain HTTP, with a token that we were given. Others, of an
/// origin that speaks ACME itself perhaps, go on as usual.
pub fn answer(acme: &Acme, peer: &Peer, parts: &Parts) -> Option<Response<Body>> {
    let token = parts.uri.path().strip_prefix(PLACE)?;
    if peer.tls.is_some() || parts.method != Method::GET {
        return None;
    }
    let answer = acme.tokens.0.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()?;
    let mut response = Response::new(body::whole(Bytes::from(answer)));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Some(response)
}
