//! Login of people by their browser at an OpenID provider: code flow with PKCE, state and nonce, then a sealed session.
//!
//! What is under way is kept in a sealed cookie of its own, bound to the state; a session begins with a new cookie and a
//! new number after the provider has spoken, so that nobody can be given one beforehand.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, SET_COOKIE},
    request::Parts,
};
use http_body_util::Full;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;
use waf_model::observation::ValueKey;
use zeroize::Zeroizing;

use super::{
    Outcome, Reason,
    claims::{self, Claims},
    credentials::{self, Found},
    fetch::Fetcher,
    introspection::client_credentials,
    jwt::Jwt,
    principal::{Findings, Principal},
    session::{self, Sealer},
};
use crate::{clock, config::auth, error::Refusal};

/// How long a login may take, in seconds.
const LOGIN: u64 = 600;

/// Sessions that were ended and are remembered as such, and opened ones that need not be opened again.
const ENDED: usize = 100_000;
const OPENED: usize = 10_000;

/// Longest target that a browser is led back to after its login.
const LONGEST_TARGET: usize = 1_024;

/// Logins at one provider.
pub struct Oidc {
    name: Arc<str>,
    settings: auth::Oidc,
    tokens: Jwt,
    consumers: HashMap<String, Findings>,
    site_key: ValueKey,
    fetcher: Fetcher,
    key: Arc<Zeroizing<[u8; 32]>>,
    sessions: Sealer,
    logins: Sealer,
    opened: Cache<[u8; 32], (Arc<Principal>, RawSession)>,
    ended: Arc<Cache<String, ()>>,
}

/// A login that is under way.
#[derive(Debug, Serialize, Deserialize)]
struct RawLogin {
    state: String,
    nonce: String,
    verifier: String,
    target: String,
    until: u64,
}

/// Who logged in.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RawSession {
    id: String,
    until: u64,
    claims: Claims,
}

/// What a provider answers to a code.
#[derive(Deserialize)]
struct RawTokens {
    id_token: String,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Oidc {
    /// Makes the method ready; `consumers` are found by the subject of a token.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(
        name: &Arc<str>,
        settings: &auth::Oidc,
        consumers: HashMap<String, Findings>,
        site_key: &ValueKey,
        fetcher: &Fetcher,
    ) -> Result<Self, getrandom::Error> {
        let key = match &settings.key {
            Some(key) => Arc::clone(key),
            None => {
                let mut key = Zeroizing::new([0; 32]);
                getrandom::fill(&mut *key)?;
                Arc::new(key)
            }
        };
        let (sessions, logins) = sealers(&key, name, settings);
        Ok(Self {
            name: Arc::clone(name),
            tokens: Jwt::new(name, &settings.tokens, HashMap::new(), site_key)?,
            key,
            sessions,
            logins,
            settings: settings.clone(),
            consumers,
            site_key: *site_key,
            fetcher: fetcher.clone(),
            opened: Cache::new(OPENED),
            ended: Arc::new(Cache::new(ENDED)),
        })
    }

    /// Goes on with the keys of the provider, and with sessions that are open or were ended.
    pub fn inherit(&mut self, old: &Self) {
        self.tokens.inherit(&old.tokens);
        self.ended = Arc::clone(&old.ended);
        if self.settings.key.is_none() && old.settings.key.is_none() {
            self.key = Arc::clone(&old.key);
            (self.sessions, self.logins) = sealers(&self.key, &self.name, &self.settings);
        }
    }

    /// Keeps metadata and keys of the provider fresh, without end.
    pub async fn run(&self) {
        self.tokens.run(&self.fetcher).await;
    }

    /// Who is logged in; or the next step of a login or logout, if the request is one.
    pub async fn verify(&self, parts: &Parts) -> Outcome {
        let now = clock::now_ms() / 1000;
        let path = parts.uri.path();
        if path == self.settings.callback {
            return self.finish(parts, now).await;
        }
        if path == self.settings.logout {
            return self.end(&parts.headers, now);
        }
        match self.session(&parts.headers, now) {
            Some((caller, _)) => Outcome::Verified(caller),
            None => Outcome::Absent,
        }
    }

    fn session(&self, headers: &HeaderMap, now: u64) -> Option<(Arc<Principal>, RawSession)> {
        let text = session::cookie(headers, &self.settings.cookie)?;
        let key = *blake3::hash(text.as_bytes()).as_bytes();
        let known = self.opened.get(&key);
        let (caller, session) = match known {
            Some(known) => known,
            None => {
                let session: RawSession = self.sessions.open(text)?;
                let names = &self.settings.tokens.names;
                let findings = claims::findings(session.claims.clone(), names, &self.consumers);
                let opened = (Arc::new(Principal::new(findings, &self.name, &self.site_key)), session);
                self.opened.insert(key, opened.clone());
                opened
            }
        };
        let is_on = session.until > now && self.ended.get(&session.id).is_none();
        is_on.then_some((caller, session))
    }

    /// Sends a browser that asks for a page to the provider; `None` for everything else.
    pub fn begin(&self, parts: &Parts) -> Option<Refusal> {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let wants_page = header("accept").is_some_and(|accept| accept.contains("text/html"));
        let navigates = header("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
        if parts.method != Method::GET || !wants_page || !navigates {
            return None;
        }
        let metadata = self.tokens.metadata()?;
        let address = metadata.address("authorization_endpoint").ok()?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        // Where `//host` or a backslash leads is for browsers to decide.
        let is_here = target.starts_with('/') && !target.starts_with("//") && !target.contains('\\');
        let login = RawLogin {
            state: random()?,
            nonce: random()?,
            verifier: random()?,
            target: if is_here && target.len() <= LONGEST_TARGET { target } else { "/" }.to_owned(),
            until: clock::now_ms() / 1000 + LOGIN,
        };
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, login.verifier.as_bytes()));
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client.id)
            .append_pair("redirect_uri", &self.settings.redirect)
            .append_pair("scope", &self.settings.scopes)
            .append_pair("state", &login.state)
            .append_pair("nonce", &login.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let cookie = self.logins.seal(&self.login_cookie(&login.state), &login, LOGIN)?;
        let separator = if address.query().is_some() { '&' } else { '?' };
        redirect("login", &format!("{address}{separator}{query}"), vec![cookie])
    }

    /// The provider has sent the browser back.
    async fn finish(&self, parts: &Parts, now: u64) -> Outcome {
        let query = parts.uri.query();
        let (Found::One(state), Found::One(code)) =
            (credentials::argument(query, "state"), credentials::argument(query, "code"))
        else {
            return Outcome::refused(Reason::LoginRefused);
        };
        // Who sends browsers back says who it is (RFC 9207), where it does: codes of another are none for ours.
        match credentials::argument(query, "iss") {
            Found::One(issuer) if *issuer != *self.settings.tokens.issuer => {
                return Outcome::refused(Reason::WrongIssuer);
            }
            _ => {}
        }
        let name = self.login_cookie(&state);
        let login: Option<RawLogin> =
            session::cookie(&parts.headers, &name).and_then(|text| self.logins.open(text));
        let Some(login) = login.filter(|login| login.until > now) else {
            return Outcome::refused(Reason::NoLogin);
        };
        if !bool::from(login.state.as_bytes().ct_eq(state.as_bytes())) {
            return Outcome::refused(Reason::NoLogin);
        }
        let Some(token) = self.exchange(&code, &login.verifier).await else {
            return Outcome::refused(Reason::LoginRefused);
        };
        let claims = match self.tokens.claims(&token, now as f64).await {
            Ok(checked) => checked.claims,
            Err(refused) => return refused.into_outcome(),
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_ours = match claims.get("aud") {
            Some(Value::Array(several)) if several.len() > 1 => text("azp") == self.settings.client.id,
            _ => true,
        };
        if !bool::from(text("nonce").as_bytes().ct_eq(login.nonce.as_bytes())) || !is_ours {
            return Outcome::refused(Reason::WrongAudience);
        }
        match self.open(claims, &name, &login.target, now) {
            Some(refusal) => Outcome::Answered(Box::new(refusal)),
            None => Outcome::Unavailable,
        }
    }

    /// Trades the code for a token, by the way that the browser does not see.
    async fn exchange(&self, code: &str, verifier: &str) -> Option<String> {
        let address = self.tokens.metadata()?.address("token_endpoint").ok()?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.settings.redirect)
            .append_pair("client_id", &self.settings.client.id)
            .append_pair("code_verifier", verifier)
            .finish();
        let mut request = Request::new(Full::new(Bytes::from(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = address;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !self.settings.client.secret.expose().is_empty() {
            headers.insert(AUTHORIZATION, client_credentials(&self.settings.client)?);
        }
        match self.fetcher.send(request).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                Some(serde_json::from_slice::<RawTokens>(&answer.body).ok()?.id_token)
            }
            Ok(answer) => {
                tracing::warn!(
                    method = &*self.name,
                    status = answer.status.as_u16(),
                    "the provider refuses a code"
                );
                None
            }
            Err(error) => {
                tracing::warn!(method = &*self.name, %error, "the provider cannot be asked");
                None
            }
        }
    }

    /// A new session, and the way back to where the login began.
    fn open(&self, claims: Claims, login_cookie: &str, target: &str, now: u64) -> Option<Refusal> {
        let lasts = self.settings.session.as_secs();
        let mut session = RawSession { id: random()?, until: now + lasts, claims };
        // Said once, at the login.
        for name in ["nonce", "at_hash", "c_hash", "s_hash"] {
            session.claims.remove(name);
        }
        let seal = |session: &RawSession| self.sessions.seal(&self.settings.cookie, session, lasts);
        let cookie = seal(&session).or_else(|| {
            tracing::warn!(
                method = &*self.name,
                "what the provider says fits into no cookie: only the subject is kept"
            );
            session.claims.retain(|name, _| name == "sub");
            seal(&session)
        })?;
        redirect("login", target, vec![cookie, self.logins.clear(login_cookie)?])
    }

    /// Ends a session here, and at the provider if it can do that.
    fn end(&self, headers: &HeaderMap, now: u64) -> Outcome {
        if let Some((_, session)) = self.session(headers, now) {
            self.ended.insert(session.id, ());
        }
        let metadata = self.tokens.metadata();
        let provider = metadata.and_then(|metadata| metadata.address("end_session_endpoint").ok());
        let target = match (provider, &self.settings.after_logout) {
            (Some(address), after) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("client_id", &self.settings.client.id);
                if let Some(after) = after {
                    query.append_pair("post_logout_redirect_uri", after);
                }
                format!("{address}?{}", query.finish())
            }
            (None, Some(after)) => after.clone(),
            (None, None) => "/".to_owned(),
        };
        let cookie = self.sessions.clear(&self.settings.cookie);
        match cookie.and_then(|cookie| redirect("logout", &target, vec![cookie])) {
            Some(refusal) => Outcome::Answered(Box::new(refusal)),
            None => Outcome::Unavailable,
        }
    }

    fn login_cookie(&self, state: &str) -> String {
        let start = state.bytes().take(8).filter(u8::is_ascii_alphanumeric).map(char::from);
        format!("{}-login-{}", self.settings.cookie, start.collect::<String>())
    }

    /// Takes the session out of what goes on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        session::strip(headers, &self.settings.cookie);
    }
}

/// What seals sessions, and what is under way.
fn sealers(key: &[u8; 32], name: &str, settings: &auth::Oidc) -> (Sealer, Sealer) {
    let sealer = |purpose: &str| Sealer::new(key, &format!("{purpose} {name}"), settings.is_secure());
    (sealer("session"), sealer("login"))
}

/// 256 random bits.
fn random() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn redirect(reason: &'static str, target: &str, cookies: Vec<HeaderValue>) -> Option<Refusal> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = vec![(LOCATION, HeaderValue::from_str(target).ok()?)];
    headers.extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
    Some(Refusal::with(StatusCode::FOUND, reason, headers))
}
