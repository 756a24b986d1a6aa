//! Opaque tokens, about which their issuer is asked (OAuth 2.0 Token Introspection, RFC 7662).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::sync::Semaphore;
use waf_model::observation::ValueKey;

use super::{
    Outcome, Reason,
    claims::{self, Claims},
    credentials::{self, Found},
    fetch::Fetcher,
    principal::{Findings, Principal},
};
use crate::{
    clock,
    config::{Toggle, auth},
};

/// Answers remembered.
const REMEMBERED: usize = 20_000;

/// How long a token stays refused without asking again.
const REFUSED: Duration = Duration::from_secs(10);

/// Questions at once.
const QUESTIONS: usize = 64;

/// Tokens of one issuer that is asked about each.
pub struct Introspection {
    name: Arc<str>,
    settings: auth::Introspection,
    consumers: HashMap<String, Findings>,
    site_key: ValueKey,
    fetcher: Fetcher,
    secret: [u8; 32],
    answers: Cache<[u8; 32], (Instant, Answer)>,
    turns: Semaphore,
}

/// What the issuer said.
#[derive(Debug, Clone)]
enum Answer {
    /// The token is good until then, in seconds since 1970.
    Good(Arc<Principal>, f64),
    Refused(Reason),
}

impl std::fmt::Debug for Introspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Introspection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Introspection {
    /// Makes the method ready; `consumers` are found by the subject of a token.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(
        name: &Arc<str>,
        settings: &auth::Introspection,
        consumers: HashMap<String, Findings>,
        site_key: &ValueKey,
        fetcher: &Fetcher,
    ) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            name: Arc::clone(name),
            settings: settings.clone(),
            consumers,
            site_key: *site_key,
            fetcher: fetcher.clone(),
            secret,
            answers: Cache::new(REMEMBERED),
            turns: Semaphore::new(QUESTIONS),
        })
    }

    /// Whom the bearer token speaks of.
    pub async fn verify(&self, headers: &HeaderMap) -> Outcome {
        let token = match credentials::authorization(headers, "Bearer") {
            Found::Absent => return Outcome::Absent,
            Found::Unclear => return Outcome::refused(Reason::Unclear),
            Found::One(token) => token,
        };
        let key = *blake3::keyed_hash(&self.secret, token.as_bytes()).as_bytes();
        let now = clock::now_ms() as f64 / 1000.0;
        if let Some((since, answer)) = self.answers.get(&key) {
            match answer {
                Answer::Good(caller, until) if since.elapsed() < self.settings.cache => {
                    return match claims::hold(f64::MIN, until, now) {
                        Ok(()) => Outcome::Verified(caller),
                        Err(reason) => Outcome::refused(reason),
                    };
                }
                Answer::Refused(reason) if since.elapsed() < REFUSED => return Outcome::refused(reason),
                _ => {}
            }
        }
        let Ok(_turn) = self.turns.try_acquire() else { return Outcome::Unavailable };
        match self.ask(token).await {
            Some(claims) => {
                let answer = self.judge(claims, now);
                self.answers.insert(key, (Instant::now(), answer.clone()));
                match answer {
                    Answer::Good(caller, _) => Outcome::Verified(caller),
                    Answer::Refused(reason) => Outcome::refused(reason),
                }
            }
            None => Outcome::Unavailable,
        }
    }

    /// What the issuer says about a token; `None` if it says nothing that can be used.
    async fn ask(&self, token: &str) -> Option<Claims> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .finish();
        let mut request = Request::new(Full::new(Bytes::from(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.address.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, client_credentials(&self.settings.client)?);
        match self.fetcher.send(request).await {
            Ok(answer) if answer.status == StatusCode::OK => serde_json::from_slice(&answer.body).ok(),
            Ok(answer) => {
                tracing::warn!(
                    method = &*self.name,
                    status = answer.status.as_u16(),
                    "introspection is refused"
                );
                None
            }
            Err(error) => {
                tracing::warn!(method = &*self.name, %error, "introspection fails");
                None
            }
        }
    }

    fn judge(&self, claims: Claims, now: f64) -> Answer {
        let settings = &self.settings;
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Answer::Refused(Reason::TokenExpired);
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        if let (Some(expected), Some(found)) = (&settings.issuer, issuer)
            && expected != found
        {
            return Answer::Refused(Reason::WrongIssuer);
        }
        if !settings.audience.is_empty() && !claims::is_for(&claims, &settings.audience) {
            return Answer::Refused(Reason::WrongAudience);
        }
        let times = claims::seconds(&claims, "exp").and_then(|until| Ok((claims::from(&claims)?, until)));
        let (from, until) = match times {
            Ok((from, until)) => (from, until.unwrap_or(f64::MAX)),
            Err(reason) => return Answer::Refused(reason),
        };
        if let Err(reason) = claims::hold(from, until, now) {
            return Answer::Refused(reason);
        }
        let findings = claims::findings(claims, &settings.names, &self.consumers);
        Answer::Good(Arc::new(Principal::new(findings, &self.name, &self.site_key)), until)
    }

    /// Takes the token out of what goes on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if self.settings.forward == Toggle::Off {
            credentials::strip_authorization(headers, "Bearer");
        }
    }
}

/// Name and secret of this gateway at an issuer (RFC 6749, 2.3.1): both are encoded before they are joined.
pub fn client_credentials(client: &auth::Client) -> Option<HeaderValue> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair =
        zeroize::Zeroizing::new(format!("{}:{}", encoded(&client.id), encoded(client.secret.expose())));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes()))).ok()?;
    value.set_sensitive(true);
    Some(value)
}
