//! The methods side by side: one is made of the configuration, asked, and cleaned up after like the other.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, request::Parts};
use waf_model::observation::ValueKey;

use super::{
    Asked, AuthError, Outcome,
    api_key::ApiKeys,
    basic::Basic,
    certificate::Certificates,
    fetch::Fetcher,
    forward::Forward,
    introspection::Introspection,
    jwt::Jwt,
    oidc::Oidc,
    principal::{Findings, Principal},
    signature::Signatures,
};
use crate::{
    config::auth::{self, Kind},
    error::Refusal,
};

/// One method of authentication under its name.
#[derive(Debug)]
pub(super) struct Method {
    name: Arc<str>,
    verifier: Verifier,
}

#[derive(Debug)]
enum Verifier {
    ApiKeys(ApiKeys),
    Basic(Basic),
    Jwt(Box<Jwt>),
    Introspection(Box<Introspection>),
    Signatures(Signatures),
    Certificates(Certificates),
    Forward(Box<Forward>),
    Oidc(Box<Oidc>),
}

impl Method {
    /// Makes the method in this place ready.
    pub(super) fn new(
        settings: &auth::Auth,
        place: usize,
        site_key: &ValueKey,
        fetcher: &Fetcher,
    ) -> Result<Option<Self>, AuthError> {
        let Some(method) = settings.methods.get(place) else { return Ok(None) };
        let name: Arc<str> = method.name.as_str().into();
        let caller = |of: &auth::Consumer| Arc::new(Principal::new(findings(of), &name, site_key));
        let by_subject = || by_subject(settings, place);
        let consumers = settings.consumers.iter();
        let verifier = match &method.kind {
            Kind::ApiKey(keys) => {
                let callers = consumers.flat_map(|of| {
                    let caller = caller(of);
                    of.api_keys.iter().map(move |hash| (*hash, Arc::clone(&caller)))
                });
                Verifier::ApiKeys(ApiKeys::new(keys, callers))
            }
            Kind::Basic(basic) => {
                let accounts =
                    consumers.filter_map(|of| Some((of.name.clone(), of.password.clone()?, caller(of))));
                Verifier::Basic(Basic::new(basic, accounts)?)
            }
            Kind::Jwt(jwt) => Verifier::Jwt(Box::new(Jwt::new(&name, jwt, by_subject(), site_key)?)),
            Kind::Introspection(settings) => {
                let method = Introspection::new(&name, settings, by_subject(), site_key, fetcher)?;
                Verifier::Introspection(Box::new(method))
            }
            Kind::Signature(signature) => {
                let keys = consumers.flat_map(|of| {
                    let signer = Findings { signed: true, ..findings(of) };
                    let caller = Arc::new(Principal::new(signer, &name, site_key));
                    let keys = of.signing_keys.iter();
                    keys.map(move |(id, secret)| {
                        (id.clone(), secret.expose().as_bytes(), Arc::clone(&caller))
                    })
                });
                Verifier::Signatures(Signatures::new(signature, keys))
            }
            Kind::Certificate(certificate) => {
                let names = consumers.flat_map(|of| of.certificates.iter().map(move |name| (name, of)));
                let names = names.map(|(name, of)| (name.clone(), findings(of))).collect();
                Verifier::Certificates(Certificates::new(&name, certificate, names, site_key))
            }
            Kind::Forward(forward) => {
                Verifier::Forward(Box::new(Forward::new(&name, forward, site_key, fetcher)))
            }
            Kind::Oidc(oidc) => {
                Verifier::Oidc(Box::new(Oidc::new(&name, oidc, by_subject(), site_key, fetcher)?))
            }
        };
        Ok(Some(Self { name, verifier }))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Goes on with what the method of this name knew before a reload.
    pub(super) fn inherit(&mut self, old: &Self) {
        match (&mut self.verifier, &old.verifier) {
            (Verifier::Jwt(new), Verifier::Jwt(old)) => new.inherit(old),
            (Verifier::Signatures(new), Verifier::Signatures(old)) => new.inherit(old),
            (Verifier::Oidc(new), Verifier::Oidc(old)) => new.inherit(old),
            _ => {}
        }
    }

    /// Does in the background what no request should wait for, without end.
    pub(super) async fn run(&self, fetcher: &Fetcher) {
        match &self.verifier {
            Verifier::Jwt(jwt) => jwt.run(fetcher).await,
            Verifier::Oidc(oidc) => oidc.run().await,
            _ => {}
        }
    }

    /// What it makes of a request.
    pub(super) async fn verify(&self, asked: &Asked<'_>) -> Outcome {
        let Asked { parts, peer, identity, now_ms, .. } = *asked;
        match &self.verifier {
            Verifier::ApiKeys(keys) => keys.verify(parts),
            Verifier::Basic(basic) => basic.verify(asked).await,
            Verifier::Jwt(jwt) => jwt.verify(&parts.headers).await,
            Verifier::Introspection(method) => method.verify(&parts.headers).await,
            Verifier::Signatures(signatures) => signatures.verify(parts, peer.tls.is_some(), now_ms / 1000),
            Verifier::Certificates(certificates) => certificates.verify(peer.certificate.as_ref()),
            Verifier::Forward(forward) => forward.verify(peer, identity, parts).await,
            Verifier::Oidc(oidc) => oidc.verify(parts).await,
        }
    }

    /// The first step of a login, if it can begin with this request.
    pub(super) fn begin(&self, parts: &Parts) -> Option<Refusal> {
        match &self.verifier {
            Verifier::Oidc(oidc) => oidc.begin(parts),
            _ => None,
        }
    }

    /// Takes its credentials out of what goes on.
    pub(super) fn strip(&self, parts: &mut Parts) {
        let headers = &mut parts.headers;
        match &self.verifier {
            Verifier::ApiKeys(keys) => keys.strip(parts),
            Verifier::Basic(basic) => basic.strip(headers),
            Verifier::Jwt(jwt) => jwt.strip(headers),
            Verifier::Introspection(method) => method.strip(headers),
            Verifier::Signatures(signatures) => signatures.strip(headers),
            Verifier::Oidc(oidc) => oidc.strip(headers),
            Verifier::Certificates(_) | Verifier::Forward(_) => {}
        }
    }

    /// What asks for its credentials. `presented`: whether the request carried something that is no good.
    pub(super) fn challenge(&self, presented: bool) -> Option<String> {
        match &self.verifier {
            Verifier::ApiKeys(_) => Some(format!("ApiKey realm=\"{}\"", self.name)),
            Verifier::Basic(basic) => Some(basic.challenge()),
            Verifier::Jwt(jwt) => Some(jwt.challenge(presented)),
            Verifier::Introspection(_) => Some(super::jwt::bearer_challenge(&self.name, presented)),
            Verifier::Signatures(_) => Some(format!("Signature realm=\"{}\"", self.name)),
            Verifier::Certificates(_) | Verifier::Forward(_) | Verifier::Oidc(_) => None,
        }
    }

    /// Headers that only it may write.
    pub(super) fn owned(&self) -> &[HeaderName] {
        match &self.verifier {
            Verifier::Forward(forward) => forward.owned(),
            _ => &[],
        }
    }
}

/// Everything that the configuration says about a consumer.
fn findings(of: &auth::Consumer) -> Findings {
    Findings { consumer: Some(of.name.as_str().into()), groups: of.groups.clone(), ..Findings::default() }
}

/// Consumers by the subjects that stand for them at the method in this place.
fn by_subject(settings: &auth::Auth, place: usize) -> HashMap<String, Findings> {
    let subjects =
        settings.consumers.iter().flat_map(|of| of.subjects.iter().map(move |subject| (of, subject)));
    let ours = subjects.filter(|(_, (method, _))| *method == place);
    ours.map(|(of, (_, subject))| (subject.clone(), findings(of))).collect()
}
