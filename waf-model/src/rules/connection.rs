//! Who connected to whom, and who says to be whom: what rules may ask beside the request's own texts.

use std::{borrow::Cow, net::SocketAddr};

use crate::{decode::Transformation, request::RequestView};

/// The connection that a request came by. What is not known is empty to rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// `REMOTE_PORT`: the client's port. Nobody says it of clients behind a proxy.
    pub client_port: Option<u16>,
    /// `SERVER_ADDR` and `SERVER_PORT`: where the request was received.
    pub server: Option<SocketAddr>,
}

/// The host that was asked for, without its port.
pub(super) fn server_name<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    let host = request.header("host")?;
    let colon = memchr::memrchr(b':', host).filter(|at| host.get(at + 1..).is_some_and(is_port));
    host.get(..colon.unwrap_or(host.len()))
}

/// Whether only digits follow, and not the rest of an address in brackets.
fn is_port(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
}

/// The scheme of `Authorization`: `Basic`, `Bearer`.
pub(super) fn auth_type<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    Some(credentials(request)?.0)
}

/// Whom the request says to be from. The password is for the application to check.
pub(super) fn user(request: &RequestView<'_>) -> Option<Vec<u8>> {
    let (scheme, rest) = credentials(request)?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded: Cow<'_, [u8]> = Transformation::Base64Decode.apply(rest);
    let colon = memchr::memchr(b':', &decoded)?;
    decoded.get(..colon).map(<[u8]>::to_vec)
}

fn credentials<'a>(request: &RequestView<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let value = request.header("authorization")?.trim_ascii();
    let end = memchr::memchr2(b' ', b'\t', value).unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end)?;
    Some((scheme, rest.trim_ascii()))
}
