//! Who asks, and whether they may: by the socket, by a token, by a certificate, or by a route that knows its callers.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::{
    Admin,
    answers::{self, ApiError, Failed, Note},
    routes::{Need, Row},
};
use crate::{
    audit::{Actor, Entry},
    auth::{
        api_key,
        credentials::{self, Found},
    },
    clock,
    config::{
        self,
        admin::{AdminToken, Role},
    },
    pipeline::published::Visitor,
    telemetry::metrics::RefusalLabels,
};

/// Time over which wrong tokens count, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// Most addresses whose wrong tokens are counted apart.
const MOST_ADDRESSES: usize = 4096;

/// By which way a request came.
#[derive(Debug, Clone)]
pub enum Door {
    /// The socket in the state directory: its mode lets in the owner alone.
    Socket {
        /// The user's number.
        uid: Option<u32>,
    },
    /// An admin listener.
    Port {
        /// Who connected.
        from: IpAddr,
        /// Whether only this machine can connect.
        is_local: bool,
        /// Names in the certificate that was shown, in lower case.
        certificate: Option<Arc<[String]>>,
    },
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For the audit log.
    pub actor: Actor,
    /// The address it comes from, if it came by a network.
    pub from: Option<String>,
    /// What it may do.
    pub role: Option<Role>,
}

/// Lets a request to `row` through if its caller may ask that, and notes in the audit log what became of an order.
pub async fn guard(
    State((admin, row)): State<(Arc<Admin>, &'static Row)>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match admit(&admin, row, &request) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    if let Some(caller) = &caller {
        request.extensions_mut().insert(caller.clone());
    }
    if row.action.is_none() {
        return carry_out(admin, row, caller, request, next).await;
    }
    // Whoever hangs up meanwhile has ordered it all the same: it is carried out and noted to its end.
    let order = tokio::spawn(carry_out(admin, row, caller, request, next));
    order.await.unwrap_or_else(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the order failed inside; see the log")
            .into_response()
    })
}

async fn carry_out(
    admin: Arc<Admin>,
    row: &'static Row,
    caller: Option<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let response = answers::uniform(next.run(request).await).await;
    let (Some(action), Some(caller)) = (row.action, caller) else { return response };
    let note = response.extensions().get::<Note>().cloned().unwrap_or_else(|| {
        let why = response.extensions().get::<Failed>().map(|Failed(why)| shortened(why));
        let after = json!({ "refused": response.status().as_u16(), "why": why });
        Note { object: format!("{method} {}", row.path), before: Value::Null, after }
    });
    let Caller { actor, from, .. } = caller;
    let Note { object, before, after } = note;
    admin.gateway.audit.record(Entry { at_ms: clock::now_ms(), actor, from, action, object, before, after });
    // Whoever gets an answer can rely on its being in the log; with a full disk nobody waits long.
    admin.gateway.audit.settled().await;
    response
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(500)).unwrap_or_default()
}

/// The caller, where one has to be known or is; an error if it may not ask this.
fn admit(admin: &Admin, row: &Row, request: &Request) -> Result<Option<Caller>, ApiError> {
    let needed = match row.need {
        Need::Nobody => None,
        Need::RoleFromAfar(_) if is_local(request) => None,
        Need::Role(role) | Need::RoleFromAfar(role) => Some(role),
    };
    let headers = request.headers();
    let is_anonymous = needed.is_none() && !headers.contains_key(header::AUTHORIZATION);
    if is_anonymous && request.extensions().get::<Visitor>().is_none() && is_port(request) {
        return Ok(None);
    }
    let caller = identify(admin, request)?;
    let Some(needed) = needed else { return Ok(Some(caller)) };
    if caller.role < Some(needed) {
        return Err(too_little(admin, row, caller, needed));
    }
    // A page of another site may make a browser send what it has, but not hide where it comes from.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if request.method() != Method::GET && !matches!(site, None | Some(b"same-origin" | b"none")) {
        refuse(admin, "cross_site");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "orders from pages of other sites are not taken"));
    }
    Ok(Some(caller))
}

fn is_port(request: &Request) -> bool {
    matches!(request.extensions().get::<Door>(), Some(Door::Port { .. }))
}

fn is_local(request: &Request) -> bool {
    matches!(
        request.extensions().get::<Door>(),
        Some(Door::Port { is_local: true, .. } | Door::Socket { .. })
    )
}

fn too_little(admin: &Admin, row: &Row, caller: Caller, needed: Role) -> ApiError {
    refuse(admin, "role");
    let has = caller.role.map_or("none", Role::name);
    let entry = Entry {
        at_ms: clock::now_ms(),
        actor: caller.actor,
        from: caller.from,
        action: "admin.refused",
        object: format!("{} {}", row.verb.name(), row.path),
        before: Value::Null,
        after: json!({ "role": has, "needed": needed.name() }),
    };
    admin.gateway.audit.record(entry);
    let detail = format!("this needs the role {}, and yours is {has}", needed.name());
    ApiError::new(StatusCode::FORBIDDEN, detail)
}

fn refuse(admin: &Admin, reason: &'static str) {
    admin.gateway.metrics.admin_refused.get_or_create(&RefusalLabels { reason }).inc();
}

/// Who asks, as far as they can prove it.
fn identify(admin: &Admin, request: &Request) -> Result<Caller, ApiError> {
    let config = admin.gateway.config.snapshot();
    let access = &config.admin;
    if let Some(visitor) = request.extensions().get::<Visitor>() {
        let role =
            access.groups.iter().filter(|(group, _)| visitor.groups.contains(group)).map(|(_, role)| *role);
        let actor = Actor::Consumer(visitor.name.clone());
        return Ok(Caller { actor, from: Some(visitor.from.to_string()), role: role.max() });
    }
    match request.extensions().get::<Door>() {
        Some(Door::Socket { uid }) => {
            let actor = uid.map_or(Actor::Nobody, Actor::User);
            Ok(Caller { actor, from: None, role: Some(Role::Admin) })
        }
        Some(Door::Port { from, certificate, .. }) => {
            let names = certificate.as_deref().unwrap_or_default();
            let (actor, role) = by_port(admin, access, *from, names, request.headers())?;
            Ok(Caller { actor, from: Some(from.to_string()), role: Some(role) })
        }
        None => Err(unknown("nobody can tell who asks")),
    }
}

fn by_port(
    admin: &Admin,
    access: &config::admin::Admin,
    from: IpAddr,
    names: &[String],
    headers: &HeaderMap,
) -> Result<(Actor, Role), ApiError> {
    let now_ms = clock::now_ms();
    if let Err(seconds) = admin.failures.admit(from, now_ms, access.failures) {
        refuse(admin, "rate");
        let error =
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address; wait");
        return Err(error.with(header::RETRY_AFTER, HeaderValue::from(seconds)));
    }
    match credentials::authorization(headers, "Bearer") {
        Found::One(token) => match find(&access.tokens, token) {
            Some(token) => return Ok((Actor::Token(token.name.clone()), token.role)),
            None => return Err(wrong(admin, from, now_ms, access.failures)),
        },
        Found::Unclear => return Err(wrong(admin, from, now_ms, access.failures)),
        Found::Absent => {}
    }
    let known = |name: &String| access.certificates.iter().find(|(known, _)| known == name);
    match names.iter().filter_map(known).max_by_key(|(_, role)| *role) {
        Some((name, role)) => Ok((Actor::Certificate(name.clone()), *role)),
        None => {
            refuse(admin, "no_token");
            let hint = if access.tokens.is_empty() {
                "this needs a token, and none is configured (admin.tokens); on the gateway's machine use its admin socket"
            } else {
                "this needs a token: send it as Authorization: Bearer TOKEN"
            };
            Err(unknown(hint))
        }
    }
}

/// The token with this hash. Every one is compared, and in constant time, so that an answer's time tells nothing.
fn find<'a>(tokens: &'a [AdminToken], given: &str) -> Option<&'a AdminToken> {
    let hash = api_key::hash(given.as_bytes());
    let same = |token: &AdminToken| bool::from(token.hash.ct_eq(&hash));
    tokens.iter().fold(None, |found, token| if same(token) { Some(token) } else { found })
}

fn wrong(admin: &Admin, from: IpAddr, now_ms: u64, most: u32) -> ApiError {
    refuse(admin, "wrong_token");
    if admin.failures.count(from, now_ms, most) {
        tracing::warn!(%from, "too many wrong admin tokens; the address has to wait");
        let entry = Entry {
            at_ms: now_ms,
            actor: Actor::Nobody,
            from: Some(from.to_string()),
            action: "admin.locked_out",
            object: from.to_string(),
            before: Value::Null,
            after: json!({ "wrong_tokens": most }),
        };
        admin.gateway.audit.record(entry);
    }
    unknown("the token is not known")
}

fn unknown(detail: &str) -> ApiError {
    let challenge = HeaderValue::from_static("Bearer realm=\"portcullis admin\"");
    ApiError::new(StatusCode::UNAUTHORIZED, detail).with(header::WWW_AUTHENTICATE, challenge)
}

/// Wrong tokens by address, over the last minute.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<IpAddr, (u64, u32)>>);

impl Failures {
    /// Whether the address may show a token now; if not, the seconds that it has to wait.
    fn admit(&self, from: IpAddr, now_ms: u64, most: u32) -> Result<(), u64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get(&network(from)) {
            Some((since, count)) if now_ms < since.saturating_add(WINDOW_MS) => {
                let left = since.saturating_add(WINDOW_MS).saturating_sub(now_ms);
                if *count < most { Ok(()) } else { Err(left.div_ceil(1000).max(1)) }
            }
            Some(_) => {
                counts.remove(&network(from));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a wrong token; whether it was the last that the address may show for now.
    fn count(&self, from: IpAddr, now_ms: u64, most: u32) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MOST_ADDRESSES {
            counts.retain(|_, (since, _)| now_ms < since.saturating_add(WINDOW_MS));
        }
        if counts.len() >= MOST_ADDRESSES && !counts.contains_key(&network(from)) {
            // Tokens are long and random: what is at stake is the log, not that one is guessed.
            return false;
        }
        let (_, count) = counts.entry(network(from)).or_insert((now_ms, 0));
        *count = count.saturating_add(1);
        *count == most
    }
}

/// An IPv6 client has a network of its own.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_run_out_and_come_back() {
        let failures = Failures::default();
        let (one, other): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let same: IpAddr = "2001:db8::2".parse().unwrap();
        assert!(!failures.count(one, 1000, 2));
        assert_eq!(failures.admit(same, 1000, 2), Ok(()));
        assert!(failures.count(same, 2000, 2));
        assert!(!failures.count(one, 2000, 2), "it is told once");
        assert_eq!(failures.admit(one, 2000, 2), Err(59));
        assert_eq!(failures.admit(other, 2000, 2), Ok(()));
        assert_eq!(failures.admit(one, 61_000, 2), Ok(()));
        for number in 0..10_000_u32 {
            failures.count(IpAddr::V4(number.into()), 62_000, 2);
        }
        assert!(failures.0.lock().unwrap().len() <= MOST_ADDRESSES);
    }

    #[test]
    fn a_token_is_found_by_its_hash() {
        let token = |name: &str, text: &str| AdminToken {
            name: name.to_owned(),
            hash: api_key::hash(text.as_bytes()),
            role: Role::Viewer,
        };
        let tokens = [token("a", "first"), token("b", "second")];
        assert_eq!(find(&tokens, "second").map(|token| token.name.as_str()), Some("b"));
        assert!(find(&tokens, "third").is_none() && find(&tokens, "").is_none());
    }
}
