//! What a gateway would have logged of generated clients: events, without a network or a gateway in between.

use std::net::IpAddr;

use fastrand::Rng;
use waf_model::{
    client::{ClientWindow, ResponseSummary},
    event::{Event, Origin, Verdict},
    keys::key_id,
    observation::{Observation, ValueKey},
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::RuleMatches,
    values::{Limits, Values},
};

use crate::request::GeneratedRequest;

/// A site whose traffic is made up.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// Key under which values, clients and networks are hashed.
    pub key: ValueKey,
    /// When its traffic begins, in milliseconds since 1970.
    pub start_ms: u64,
    /// Milliseconds over which clients arrive.
    pub span_ms: u64,
    /// Requests of each client.
    pub requests: usize,
}

impl Site {
    /// What `clients` do, in order of time. Each is where it comes from, and what it would send next, for ever.
    /// All of it passes: no rules run, and the upstream answers 200.
    pub fn traffic<I: Iterator<Item = GeneratedRequest>>(
        &self,
        clients: impl IntoIterator<Item = (IpAddr, I)>,
        seed: u64,
    ) -> Vec<Event> {
        let mut rng = Rng::with_seed(seed);
        let mut events = Vec::new();
        for (address, requests) in clients {
            let mut at_ms = self.start_ms + rng.u64(..self.span_ms.max(1));
            let mut window = ClientWindow::new(at_ms);
            for request in requests.take(self.requests) {
                at_ms += u64::try_from(request.think.as_millis()).unwrap_or(0).max(1);
                events.push(self.event(&request, address, at_ms, &mut window, rng.u128(..)));
            }
        }
        events.sort_by_key(|event| (event.at_ms, event.id));
        events
    }

    fn event(
        &self,
        request: &GeneratedRequest,
        address: IpAddr,
        at_ms: u64,
        window: &mut ClientWindow,
        id: u128,
    ) -> Event {
        let observation = observe(request, &self.key);
        window.record_request(at_ms, &observation);
        let client_vector = window.vector();
        window.record_response(at_ms + 20, ResponseSummary { status: 200, bytes: 2_000 });
        let network = match address {
            IpAddr::V4(address) => address.octets().get(..3).map_or(0, |net| self.key.hash(net)),
            IpAddr::V6(address) => address.octets().get(..6).map_or(0, |net| self.key.hash(net)),
        };
        let api = request.uri.starts_with("/api/");
        Event {
            id: id.to_be_bytes(),
            at_ms,
            client: self.key.hash(address.to_string().as_bytes()),
            network,
            route: if api { "api" } else { "shop" }.to_owned(),
            observation,
            client_vector,
            score: None,
            model: 0,
            key_id: key_id(&self.key),
            verdict: Verdict::Pass,
            status: 200,
            origin: Origin::Upstream,
            upstream_us: 900,
            response_bytes: 2_000,
            weight: 1.0,
            hits: Vec::new(),
            response_hits: Vec::new(),
        }
    }
}

/// What is observed of `request`. Rules do not run.
pub fn observe(request: &GeneratedRequest, key: &ValueKey) -> Observation {
    with_view(request, |view| {
        Observation::of(view, &Values::extract(view, &Limits::default()), &RuleMatches::default(), key)
    })
}

/// Shows `request` as the WAF sees it.
pub fn with_view<T>(request: &GeneratedRequest, see: impl FnOnce(&RequestView<'_>) -> T) -> T {
    let (path, query) = match request.uri.split_once('?') {
        Some((path, query)) => (path, Some(query.as_bytes())),
        None => (request.uri.as_str(), None),
    };
    let headers: Vec<Header<'_>> =
        request.headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    see(&RequestView {
        method: request.method,
        path: path.as_bytes(),
        query,
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: &request.body, extent: BodyExtent::Complete },
        client_address: "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benign;

    #[test]
    fn traffic_is_repeatable_and_in_order_of_time() {
        let site =
            Site { key: ValueKey([1; 16]), start_ms: 1_785_542_400_000, span_ms: 3_600_000, requests: 5 };
        let make = || {
            let clients = benign::population(4, 0, 40).into_iter().map(|c| (c.identity().address, c));
            site.traffic(clients, 2)
        };
        let events = make();
        assert_eq!(events.len(), 200);
        assert_eq!(events, make());
        assert!(events.is_sorted_by_key(|event| event.at_ms));
        let networks: std::collections::BTreeSet<_> = events.iter().map(|event| event.network).collect();
        assert!(networks.len() > 30, "{}", networks.len());
    }
}
