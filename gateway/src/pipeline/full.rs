//! A copy of the request as rules saw it, for routes that say `record: full`.

use waf_model::{
    event::Verdict,
    full_record::FullRecord,
    request::{BodyExtent, RequestView},
};

use crate::{
    config::Route,
    identity::{self, Identity},
};

/// The request as it is, its body up to `most` bytes. What becomes of it is not known yet.
pub(super) fn copy(route: &Route, request: &RequestView<'_>, identity: &Identity, most: usize) -> FullRecord {
    let body = request.body.bytes.get(..most).unwrap_or(request.body.bytes);
    let complete = request.body.extent == BodyExtent::Complete && body.len() == request.body.bytes.len();
    FullRecord {
        id: identity.id,
        at_ms: 0,
        client: 0,
        route: route.name.clone(),
        paranoia: route.rules.paranoia,
        thresholds: (route.inbound_threshold, route.outbound_threshold),
        verdict: Verdict::Pass,
        acts: true,
        hits: Vec::new(),
        what: String::new(),
        network: identity::network_of(identity.address),
        method: request.method.to_owned(),
        path: request.path.to_vec(),
        query: request.query.map(<[u8]>::to_vec),
        protocol: request.protocol.to_owned(),
        headers: request
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), header.value.to_vec()))
            .collect(),
        body: body.to_vec(),
        complete,
    }
}
