//! Who calls: every method of authentication that a route accepts is asked, and what it demands is checked.
//!
//! Credentials end here: they are taken out of what goes on, and the upstream learns who calls from headers that only
//! the gateway writes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};
use tokio::sync::Notify;
use waf_model::observation::ValueKey;

use crate::{
    clock,
    config::{Config, Route, Toggle, auth::Requirement},
    error::{Fault, Refusal},
    identity::{Identity, Peer, fold},
};

pub mod api_key;
pub mod basic;
pub mod brute;
pub mod buckets;
pub mod certificate;
pub mod claims;
pub mod credentials;
pub mod fetch;
pub mod forward;
pub mod introspection;
pub mod jwks;
pub mod jws;
pub mod jwt;
pub mod login;
mod methods;
pub mod oidc;
pub mod policy;
pub mod principal;
pub mod session;
pub mod signature;

pub use principal::{Findings, Principal};

use brute::Guard;
use fetch::Fetcher;
use methods::Method;
use policy::Judgement;

/// The reason where a request carries nothing that is accepted.
const MISSING: &str = "credentials_missing";

/// What one method makes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It carries nothing that this method knows.
    Absent,
    /// It proves who calls.
    Verified(Arc<Principal>),
    /// It carries something that proves nothing.
    Refused {
        /// Why, for the log alone.
        reason: Reason,
    },
    /// It is answered by the method itself: a refusal of its own, or the next step of a login.
    Answered(Box<Refusal>),
    /// Nobody can tell right now.
    Unavailable,
}

impl Outcome {
    fn refused(reason: Reason) -> Self {
        Self::Refused { reason }
    }
}

/// Why credentials were refused. For the log: the caller is told none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Several at once, or such that cannot be read.
    Unclear,
    /// No such API key.
    WrongKey,
    /// No such name, or not its password.
    WrongPassword,
    /// No token that can be read, or signed in no known way.
    NoToken,
    /// A token longer than is read.
    TokenTooLarge,
    /// Signed with an algorithm that is not accepted.
    WrongAlgorithm,
    /// Not signed by any known key.
    WrongSignature,
    /// By another issuer.
    WrongIssuer,
    /// For somebody else.
    WrongAudience,
    /// No longer good, or not said until when.
    TokenExpired,
    /// Not good yet.
    TokenTooEarly,
    /// A signature that does not cover what matters.
    NotCovered,
    /// A signature that was used before.
    Replayed,
    /// A certificate without a name that is accepted.
    WrongName,
    /// A provider says no, or nothing that can be used.
    LoginRefused,
    /// An answer to a login that this browser did not begin.
    NoLogin,
}

impl Reason {
    /// Whether somebody tries what might be right. Tokens are not tried: those of a new key look made up until the key
    /// was fetched.
    fn is_guess(self) -> bool {
        matches!(self, Self::WrongKey)
    }

    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unclear => "credentials_unclear",
            Self::WrongKey => "wrong_api_key",
            Self::WrongPassword => "wrong_password",
            Self::NoToken => "no_token",
            Self::TokenTooLarge => "token_too_large",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::WrongSignature => "wrong_signature",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::TokenExpired => "token_expired",
            Self::TokenTooEarly => "token_too_early",
            Self::NotCovered => "signature_covers_too_little",
            Self::Replayed => "replayed",
            Self::WrongName => "wrong_certificate_name",
            Self::LoginRefused => "login_refused",
            Self::NoLogin => "no_login_under_way",
        }
    }
}

/// An account that somebody tried, as a hash of its folded name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account(u64);

impl Account {
    /// The account of this name; case and surrounding blanks make no other one.
    pub fn of(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(name.trim().to_lowercase().as_bytes()).as_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// All methods of authentication, ready to use.
#[derive(Debug)]
pub struct Auth {
    methods: Vec<Method>,
    fetcher: Option<Fetcher>,
    guard: Arc<Guard>,
    /// Headers that only a method may write, beside those that always are the gateway's: folded.
    owned: Vec<String>,
}

/// The methods in force: a reload replaces all of them at once.
#[derive(Debug)]
pub struct AuthSlot {
    current: ArcSwap<Auth>,
    replaced: Notify,
}

impl AuthSlot {
    /// Puts the first ones in force.
    pub fn new(auth: Auth) -> Self {
        Self { current: ArcSwap::from_pointee(auth), replaced: Notify::new() }
    }

    /// The methods in force now.
    pub fn snapshot(&self) -> Arc<Auth> {
        self.current.load_full()
    }

    /// Puts others in force, for every request that comes from now on.
    pub fn swap(&self, auth: Auth) {
        self.current.store(Arc::new(auth));
        self.replaced.notify_one();
    }

    /// Does in the background what no request should wait for, for whichever are in force, without end.
    pub async fn run(&self) {
        loop {
            let auth = self.snapshot();
            tokio::select! {
                // Ends where there is nothing to do.
                () = async { auth.run().await; std::future::pending::<()>().await } => {}
                () = self.replaced.notified() => {}
            }
        }
    }
}

/// Why authentication cannot work on this system.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// No TLS.
    #[error("TLS towards issuers: {0}")]
    Tls(#[from] rustls::Error),
}

/// One request at this stage.
#[derive(Debug)]
pub struct Visit<'a> {
    /// The route it takes.
    pub route: &'a Route,
    /// The connection it came by.
    pub peer: &'a Peer,
    /// Who sends it, as far as that is known without asking.
    pub identity: &'a Identity,
    /// Whether its address is allowed everything, so that failures do not count.
    pub allowed: bool,
    /// The request, without headers that are not the client's to send.
    pub parts: &'a mut Parts,
}

/// What the methods are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The connection.
    pub peer: &'a Peer,
    /// The sender.
    pub identity: &'a Identity,
    /// The request.
    pub parts: &'a Parts,
    /// What counts failures; nothing for addresses that are allowed everything.
    pub guard: Option<&'a Arc<Guard>>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl Auth {
    /// Makes the methods of a configuration ready. What those `before` it know goes on to those of the same name: keys
    /// that were fetched, signatures that were seen, sessions that are open or were ended, failures.
    ///
    /// # Errors
    /// The system has no random numbers, or no TLS.
    pub fn new(config: &Config, site_key: &ValueKey, before: Option<&Self>) -> Result<Self, AuthError> {
        let settings = &config.auth;
        let fetcher = if settings.methods.is_empty() { None } else { Some(Fetcher::new(&settings.ca)?) };
        let mut methods = Vec::with_capacity(settings.methods.len());
        if let Some(fetcher) = &fetcher {
            for place in 0..settings.methods.len() {
                methods.extend(Method::new(settings, place, site_key, fetcher)?);
            }
        }
        for method in &mut methods {
            if let Some(old) = before.and_then(|before| before.method(method.name())) {
                method.inherit(old);
            }
        }
        let owned = methods.iter().flat_map(Method::owned).map(|name| fold(name.as_str()).into_owned());
        let owned = owned.collect();
        let guard = before.map(|before| &before.guard).filter(|guard| *guard.settings() == settings.guessing);
        let guard = match guard {
            Some(guard) => Arc::clone(guard),
            None => Arc::new(Guard::new(settings.guessing)?),
        };
        Ok(Self { methods, fetcher, guard, owned })
    }

    fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name() == name)
    }

    /// Does in the background what no request should wait for, without end.
    pub async fn run(&self) {
        let Some(fetcher) = &self.fetcher else { return };
        join_all(self.methods.iter().map(|method| method.run(fetcher))).await;
    }

    /// What counts failed logins.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Finds out who calls, as far as the route wants to know, and whether it may. `None` is nobody in particular.
    ///
    /// # Errors
    /// [`Fault::Refused`]: the caller has not proved who it is, or may not do this; or the method answers itself.
    pub async fn admit(&self, visit: &mut Visit<'_>) -> Result<Option<Arc<Principal>>, Fault> {
        let Visit { route, peer, identity, allowed, parts } = visit;
        self.strip_owned(&mut parts.headers);
        let Some(requirement) = &route.auth else { return Ok(None) };
        let guard = if *allowed { None } else { Some(&self.guard) };
        let asked = Asked { peer, identity, parts, guard, now_ms: clock::now_ms() };
        let caller = self.identify(requirement, &asked).await?;
        let refused = |reason| Err(Refusal::new(StatusCode::FORBIDDEN, reason).into());
        if caller.as_ref().is_some_and(|caller| !caller.meets(&requirement.terms)) {
            return refused("forbidden");
        }
        match requirement.policy.as_ref().map(|policy| policy.judge(caller.as_deref(), identity, parts)) {
            None | Some(Judgement::Allowed) => Ok(caller),
            Some(Judgement::Denied) => refused(policy::DENIED),
            Some(Judgement::Failed) => refused(policy::FAILED),
        }
    }

    /// Takes the credentials out of what goes on.
    pub fn strip(&self, route: &Route, parts: &mut Parts) {
        for method in route.auth.iter().flat_map(|requirement| self.accepted(requirement)).flatten() {
            method.strip(parts);
        }
    }

    async fn identify(
        &self,
        requirement: &Requirement,
        asked: &Asked<'_>,
    ) -> Result<Option<Arc<Principal>>, Fault> {
        let mut all: Option<Arc<Principal>> = None;
        let mut missing = false;
        for method in self.named(&requirement.all_of) {
            // Of a configuration that is being replaced: nobody can tell any more what it asked for.
            let Some(method) = method else { return Err(unavailable()) };
            match method.verify(asked).await {
                Outcome::Verified(caller) => all = Some(joined(all, caller)?),
                Outcome::Absent => missing = true,
                Outcome::Refused { reason } => return Err(self.refused(requirement, reason, asked)),
                Outcome::Answered(refusal) => return Err(Fault::Refused(refusal)),
                Outcome::Unavailable => return Err(unavailable()),
            }
        }
        let mut any = None;
        let mut refused = None;
        let mut nobody_knows = false;
        for method in self.named(&requirement.any_of) {
            let Some(method) = method else {
                nobody_knows = true;
                continue;
            };
            match method.verify(asked).await {
                Outcome::Verified(caller) => {
                    any = Some(caller);
                    break;
                }
                Outcome::Absent => {}
                Outcome::Refused { reason } => refused = Some(reason),
                Outcome::Answered(refusal) => return Err(Fault::Refused(refusal)),
                Outcome::Unavailable => nobody_knows = true,
            }
        }
        match (any, refused) {
            (Some(caller), _) if !missing => return joined(all, caller).map(Some),
            (None, _) if nobody_knows => return Err(unavailable()),
            (None, Some(reason)) => return Err(self.refused(requirement, reason, asked)),
            _ => {}
        }
        if requirement.any_of.is_empty() && !missing && all.is_some() {
            return Ok(all);
        }
        // Half of what is asked for is not nothing: only who shows nothing at all is nobody.
        if requirement.anonymous == Toggle::On && all.is_none() {
            return Ok(None);
        }
        let login = self.accepted(requirement).flatten().find_map(|method| method.begin(asked.parts));
        match login {
            Some(login) => Err(login.into()),
            None => Err(self.unauthorized(requirement, MISSING)),
        }
    }

    fn named<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = Option<&'a Method>> {
        names.iter().map(|name| self.method(name))
    }

    fn accepted<'a>(&'a self, requirement: &'a Requirement) -> impl Iterator<Item = Option<&'a Method>> {
        self.named(&requirement.all_of).chain(self.named(&requirement.any_of))
    }

    /// What was made up counts as a failure of the address.
    fn refused(&self, requirement: &Requirement, reason: Reason, asked: &Asked<'_>) -> Fault {
        if let Some(guard) = asked.guard.filter(|_| reason.is_guess())
            && let Err(refusal) = guard.count(asked.identity.address, asked.now_ms)
        {
            return refusal.into();
        }
        self.unauthorized(requirement, reason.name())
    }

    /// 401, with what would be accepted. What was wrong is in the log and nowhere else.
    fn unauthorized(&self, requirement: &Requirement, reason: &'static str) -> Fault {
        let challenges = self.accepted(requirement).flatten().filter_map(|method| {
            let challenge = HeaderValue::from_str(&method.challenge(reason != MISSING)?).ok()?;
            Some((WWW_AUTHENTICATE, challenge))
        });
        Refusal::with(StatusCode::UNAUTHORIZED, reason, challenges.collect()).into()
    }

    /// Drops what clients send under names that a method writes, in any spelling, on every route.
    fn strip_owned(&self, headers: &mut HeaderMap) {
        if self.owned.is_empty() {
            return;
        }
        let is_owned = |name: &HeaderName| self.owned.iter().any(|owned| *owned == fold(name.as_str()));
        let found: Vec<HeaderName> = headers.keys().filter(|name| is_owned(name)).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

/// The one caller that both speak of.
fn joined(one: Option<Arc<Principal>>, other: Arc<Principal>) -> Result<Arc<Principal>, Fault> {
    let Some(one) = one else { return Ok(other) };
    match one.join(&other) {
        Some(both) => Ok(Arc::new(both)),
        None => Err(Refusal::new(StatusCode::FORBIDDEN, "identities_differ").into()),
    }
}

fn unavailable() -> Fault {
    let again = (RETRY_AFTER, HeaderValue::from_static("1"));
    Refusal::with(StatusCode::SERVICE_UNAVAILABLE, "auth_unavailable", vec![again]).into()
}
