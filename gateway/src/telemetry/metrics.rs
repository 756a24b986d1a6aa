//! Prometheus metrics: seconds and bytes, and label sets that traffic cannot grow.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::telemetry::{
    live_metrics::LiveMetrics, reload_metrics::ReloadMetrics, tls_metrics::TlsMetrics,
    upstream_metrics::UpstreamMetrics,
};

/// Every metric of the data plane.
pub struct Metrics {
    registry: Registry,
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from arrival to the last byte of the response.
    pub duration: Family<RouteLabels, Histogram>,
    /// Bytes of request bodies.
    pub request_size: Family<RouteLabels, Histogram>,
    /// Bytes of response bodies.
    pub response_size: Family<RouteLabels, Histogram>,
    /// Requests in progress.
    pub active_requests: Gauge,
    /// Connections open.
    pub connections: Gauge,
    /// Connections that could not be accepted or secured.
    pub connection_errors: Family<ReasonLabels, Counter>,
    /// Seconds until an upstream's response headers.
    pub upstream_duration: Family<RouteLabels, Histogram>,
    /// Requests sent again after a kept connection was found closed.
    pub upstream_retries: Counter,
    /// What the WAF found.
    pub waf_requests: Family<VerdictLabels, Counter>,
    /// Matches by rule.
    pub rule_matches: Family<RuleLabels, Counter>,
    /// Seconds of inspection.
    pub inspection: Histogram,
    /// Surprise of requests, -log10 p.
    pub score: Histogram,
    /// Bodies that were longer than the inspection window.
    pub body_truncated: Counter,
    /// Response bodies that rules look at, by how much of them was inspected.
    pub response_bodies: Family<BodyLabels, Counter>,
    /// Seconds of inspection of responses.
    pub response_inspection: Histogram,
    /// Responses that were to be changed or masked, by what became of them.
    pub response_changes: Family<ChangeLabels, Counter>,
    /// Faults inside inspection, by what became of the request.
    pub engine_errors: Family<FailLabels, Counter>,
    /// Clients blocked on evidence.
    pub client_blocks: Counter,
    /// Logins refused because too many had failed, by whose failures they were.
    pub login_refusals: Family<RefusalLabels, Counter>,
    /// Requests that break the OpenAPI document of their route.
    pub openapi_violations: Family<ViolationLabels, Counter>,
    /// Requests to the admin API that were refused, by reason.
    pub admin_refused: Family<RefusalLabels, Counter>,
    /// Requests refused by a limit on how often.
    pub rate_limited: Family<LimitLabels, Counter>,
    /// Requests refused for where they come from.
    pub access_refused: Family<AccessLabels, Counter>,
    /// Requests that a policy refused.
    pub policy_refused: Family<PolicyLabels, Counter>,
    /// Requests that waited for their turn.
    pub rate_delayed: Family<LimitLabels, Counter>,
    /// Access log lines dropped.
    pub log_dropped: Gauge,
    /// What the model in force does here.
    pub live: LiveMetrics,
    /// Requests refused because too many were in progress.
    pub requests_shed: Counter,
    /// Reloads of the configuration.
    pub reloads: ReloadMetrics,
    /// Certificates of listeners.
    pub tls: TlsMetrics,
    /// How the origins fare.
    pub upstreams: UpstreamMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Labels of `portcullis_http_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Listener name.
    pub listener: String,
    /// Route name; empty for none.
    pub route: String,
    /// A common method or `_OTHER`.
    pub method: &'static str,
    /// Status.
    pub code: u16,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// Route name; empty for none.
    pub route: String,
}

/// A verdict under a mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    /// Route name; empty for none.
    pub route: String,
    /// `pass`, `rules`, `model`, `blocked`, `allowed`, `fault`, `response`.
    pub verdict: &'static str,
    /// `off`, `detect`, `block`.
    pub mode: &'static str,
}

/// Why a client is not served here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AccessLabels {
    /// Listener name.
    pub listener: String,
    /// Route name; empty where the listener refused.
    pub route: String,
    /// `network_refused`, `asn_refused`, `country_refused`.
    pub reason: &'static str,
}

/// Why a policy refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabels {
    /// Route name.
    pub route: String,
    /// `policy_denied`; or `policy_failed`, where it came to no answer.
    pub reason: &'static str,
}

/// A limit on how often.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// The limit's name.
    pub limit: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RuleLabels {
    /// The rule's id.
    pub rule_id: u32,
}

/// How much of a response body was inspected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BodyLabels {
    /// `whole`, `prefix`, or `no` if it cannot be decoded.
    pub inspected: &'static str,
}

/// What became of a response that was to be changed or masked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChangeLabels {
    /// Route name.
    pub route: String,
    /// `changed`, `unchanged`, `withheld`, or `passed` although it could not be looked through.
    pub outcome: &'static str,
}

/// What became of a request that could not be inspected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailLabels {
    /// `open` or `closed`.
    pub fail: &'static str,
}

/// Whose failed logins were too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// `guessing_address`, `guessing_pair`, `guessing_account`, `guessing_password`, `guessing_key`.
    pub reason: &'static str,
}

/// What of an OpenAPI document was broken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ViolationLabels {
    /// Route name.
    pub route: String,
    /// `path`, `method`, `query`, `header`, `body`.
    pub place: &'static str,
    /// `detect` or `block`.
    pub mode: &'static str,
}

/// Why a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// `accept`, `per_address`, `proxy_protocol`, `tls`, `malformed`, `h2_flood`, `header_timeout`, `write_timeout`.
    pub reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let sizes = || Histogram::new(exponential_buckets(64.0, 4.0, 12));
        let mut metrics = Self {
            registry: Registry::with_prefix("portcullis"),
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds as fn() -> Histogram),
            request_size: Family::new_with_constructor(sizes as fn() -> Histogram),
            response_size: Family::new_with_constructor(sizes as fn() -> Histogram),
            active_requests: Gauge::default(),
            connections: Gauge::default(),
            connection_errors: Family::default(),
            upstream_duration: Family::new_with_constructor(seconds as fn() -> Histogram),
            upstream_retries: Counter::default(),
            waf_requests: Family::default(),
            rule_matches: Family::default(),
            inspection: Histogram::new(exponential_buckets(0.000_005, 2.0, 16)),
            score: Histogram::new([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]),
            body_truncated: Counter::default(),
            response_bodies: Family::default(),
            response_inspection: Histogram::new(exponential_buckets(0.000_005, 2.0, 16)),
            response_changes: Family::default(),
            engine_errors: Family::default(),
            client_blocks: Counter::default(),
            login_refusals: Family::default(),
            openapi_violations: Family::default(),
            admin_refused: Family::default(),
            rate_limited: Family::default(),
            access_refused: Family::default(),
            policy_refused: Family::default(),
            rate_delayed: Family::default(),
            log_dropped: Gauge::default(),
            live: LiveMetrics::default(),
            requests_shed: Counter::default(),
            reloads: ReloadMetrics::default(),
            tls: TlsMetrics::default(),
            upstreams: UpstreamMetrics::default(),
        };
        metrics.register();
        metrics
    }

    /// The text that Prometheus scrapes.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The registry, for metrics of other parts; before the gateway starts.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register("http_request_duration_seconds", "Arrival to last byte", self.duration.clone());
        registry.register("http_request_size_bytes", "Request bodies", self.request_size.clone());
        registry.register("http_response_size_bytes", "Response bodies", self.response_size.clone());
        registry.register("http_active_requests", "Requests in progress", self.active_requests.clone());
        registry.register(
            "http_requests_shed",
            "Refused for too many in progress",
            self.requests_shed.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("connection_errors", "Failed connections", self.connection_errors.clone());
        registry.register(
            "upstream_request_duration_seconds",
            "Time until an upstream's response headers",
            self.upstream_duration.clone(),
        );
        registry.register("upstream_retries", "Requests sent again", self.upstream_retries.clone());
        registry.register("waf_requests", "What the WAF found", self.waf_requests.clone());
        registry.register("waf_rule_matches", "Matches by rule", self.rule_matches.clone());
        registry.register("waf_inspection_duration_seconds", "Time of inspection", self.inspection.clone());
        registry.register("waf_score", "Surprise of requests, -log10 p", self.score.clone());
        registry.register("waf_body_truncated", "Bodies beyond the window", self.body_truncated.clone());
        registry.register("waf_response_bodies", "Bodies rules look at", self.response_bodies.clone());
        registry.register(
            "waf_response_inspection_duration_seconds",
            "Time of inspection of responses",
            self.response_inspection.clone(),
        );
        registry.register("response_changes", "Responses to be changed", self.response_changes.clone());
        registry.register("waf_engine_errors", "Faults inside inspection", self.engine_errors.clone());
        registry.register("client_blocks", "Clients blocked on evidence", self.client_blocks.clone());
        registry.register("login_refusals", "Logins refused for guessing", self.login_refusals.clone());
        registry.register(
            "openapi_violations",
            "Requests that break OpenAPI",
            self.openapi_violations.clone(),
        );
        registry.register("admin_refused", "Requests to the admin API refused", self.admin_refused.clone());
        registry.register("rate_limited", "Requests refused by a limit", self.rate_limited.clone());
        registry.register("access_refused", "Refused for where they come from", self.access_refused.clone());
        registry.register("policy_refused", "Refused by a policy", self.policy_refused.clone());
        registry.register("rate_delayed", "Requests that waited for a limit", self.rate_delayed.clone());
        registry.register("access_log_dropped_lines", "Log lines dropped", self.log_dropped.clone());
        self.live.register(registry);
        self.reloads.register(registry);
        self.tls.register(registry);
        self.upstreams.register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_the_documented_names() {
        let metrics = Metrics::new();
        let labels =
            RequestLabels { listener: "http".to_owned(), route: "api".to_owned(), method: "GET", code: 200 };
        metrics.requests.get_or_create(&labels).inc();
        let text = metrics.encode();
        let line =
            "portcullis_http_requests_total{listener=\"http\",route=\"api\",method=\"GET\",code=\"200\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
