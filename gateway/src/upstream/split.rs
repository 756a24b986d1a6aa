//! Which of several upstreams a request goes to: by a header field, or by the shares of clients.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use http::HeaderMap;

use crate::config::{Route, UpstreamGroup};

/// The upstream for this request. A client stays with the part that its address falls to, as long as the weights stay.
pub(super) fn chosen<'a>(route: &'a Route, address: IpAddr, headers: &HeaderMap) -> &'a Arc<UpstreamGroup> {
    let split = &route.routing.split;
    let named = |headers: &HeaderMap| {
        split
            .iter()
            .find(|part| !part.headers.is_empty() && part.headers.iter().all(|field| field.matches(headers)))
    };
    if split.is_empty() {
        return &route.upstream;
    }
    if let Some(part) = named(headers) {
        return &part.upstream;
    }
    let total: u64 = split.iter().map(|part| u64::from(part.weight)).sum();
    let mut hasher = DefaultHasher::new();
    (&route.name, address).hash(&mut hasher);
    let mut point = hasher.finish() % total.max(1);
    for part in split {
        match point.checked_sub(u64::from(part.weight)) {
            None => return &part.upstream,
            Some(rest) => point = rest,
        }
    }
    &route.upstream
}
