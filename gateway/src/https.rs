//! Plain HTTP is sent to HTTPS, where there is a TLS listener.

use http::{HeaderValue, StatusCode, header, request::Parts};

use crate::{
    config::Config,
    error::{Fault, Refusal},
    identity::{Identity, Peer, Via},
    limits,
};

/// Lets a request go on if it came by TLS, here or at a trusted proxy, or its listener is for plain HTTP.
///
/// # Errors
/// [`Fault::Refused`] with 308 and the same address by HTTPS.
pub fn require(config: &Config, peer: &Peer, identity: &Identity, parts: &Parts) -> Result<(), Fault> {
    if peer.tls.is_some() {
        return Ok(());
    }
    let listener = config.listeners.iter().find(|listener| *listener.name == *peer.listener);
    let Some(port) = listener.and_then(|listener| listener.https_port) else { return Ok(()) };
    let said = parts.headers.get("x-forwarded-proto").map(HeaderValue::as_bytes);
    if identity.via == Via::TrustedProxy && said == Some(b"https") {
        return Ok(());
    }
    let host = limits::host_name(&parts.uri, &parts.headers);
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let location = HeaderValue::try_from(format!("https://{host}{port}{path}"));
    let headers = location.into_iter().map(|location| (header::LOCATION, location)).collect();
    Err(Refusal::with(StatusCode::PERMANENT_REDIRECT, "https_required", headers).into())
}
