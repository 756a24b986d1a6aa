//! From what the file holds to what the gateway may rely on: every value parsed once, all mistakes reported.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use http::HeaderName;
use ipnet::IpNet;

use super::{
    Challenger, Config, Limits, Listener, Mistakes, Mode, OnError, Oversize, Route, StoreConfig, TlsFiles,
    Toggle, Waf, document,
    mistakes::Collector,
    parse::{existing, parse_host, parse_key, parse_method, parse_prefix, parse_upstream},
    raw::{
        RawConfig, RawLimits, RawListener, RawMode, RawOnError, RawOversize, RawProvisional, RawRoute,
        RawStore, RawToggle, RawUpstream, RawWaf,
    },
    rule_plan::Plans,
    shape::{Environment, Shape},
};
use crate::tls;

const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const KIB: u64 = 1024;
const MIB: u64 = 1024 * 1024;

/// Reads a file's text.
pub(super) fn load(text: &str, file: &str, environment: Environment<'_>) -> Result<Config, Mistakes> {
    let mut mistakes = Collector::default();
    let mut document = match document::read(text) {
        Ok(document) => document,
        Err((line, message)) => {
            mistakes.locate("", line);
            mistakes.add("", format!("not YAML: {message}"));
            return Err(finish(mistakes, file));
        }
    };
    let schema = super::schema();
    Shape { schema: &schema, environment }.check_document(&mut document, &mut mistakes);
    let raw = match serde_json::from_value::<RawConfig>(document.kind.to_json()) {
        Ok(raw) => raw,
        Err(error) => {
            // Only what the schema check let through can end here.
            mistakes.add("", error.to_string());
            RawConfig::default()
        }
    };
    compile(&raw, mistakes, file)
}

/// Makes a configuration from the arguments of `gateway run --upstream`.
pub(super) fn quick(
    upstream: &str,
    listen: Option<&str>,
    mode: Option<&str>,
    state: Option<&str>,
) -> Result<Config, Mistakes> {
    let mut mistakes = Collector::default();
    let listen = listen.map(|address| match address.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => address.to_owned(),
    });
    let mode = match mode {
        None => None,
        Some("off") => Some(RawMode::Off),
        Some("detect") => Some(RawMode::Detect),
        Some("block") => Some(RawMode::Block),
        Some(other) => {
            mistakes.add("waf.mode", format!("{other:?} is not one of off, detect, block"));
            None
        }
    };
    let listeners = listen.map(|address| RawListener { address: Some(address), ..RawListener::default() });
    let route = RawRoute {
        name: Some("default".to_owned()),
        upstreams: vec![RawUpstream { url: Some(upstream.to_owned()) }],
        ..RawRoute::default()
    };
    let raw = RawConfig {
        version: Some(1),
        listeners: listeners.into_iter().collect(),
        routes: vec![route],
        waf: RawWaf { mode, ..RawWaf::default() },
        state: state.map(str::to_owned),
        ..RawConfig::default()
    };
    compile(&raw, mistakes, "command line")
}

fn finish(mistakes: Collector, file: &str) -> Mistakes {
    mistakes.finish(file).unwrap_or(Mistakes { file: file.to_owned(), list: Vec::new(), rules: Vec::new() })
}

fn compile(raw: &RawConfig, mistakes: Collector, file: &str) -> Result<Config, Mistakes> {
    let mut compiler = Compiler { mistakes, plans: Plans::default() };
    let mut config = compiler.config(raw);
    config.warnings = compiler.plans.warnings(&compiler.mistakes, file);
    match compiler.mistakes.finish(file) {
        Some(mistakes) => Err(mistakes),
        None => Ok(config),
    }
}

pub(super) struct Compiler {
    pub(super) mistakes: Collector,
    pub(super) plans: Plans,
}

impl Compiler {
    fn config(&mut self, raw: &RawConfig) -> Config {
        if raw.version != Some(1) {
            self.mistakes.add("version", "this gateway reads version 1; write \"version: 1\"");
        }
        let listeners = self.listeners(&raw.listeners);
        let names: BTreeSet<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let routes = self.routes(raw, &names);
        Config {
            routes,
            trusted_proxies: self.networks("trusted_proxies", &raw.trusted_proxies),
            auth: self.auth(raw),
            limits: self.limits(&raw.limits),
            waf: self.waf(&raw.waf),
            store: self.store(&raw.store),
            records: self.records(raw),
            admin: self.parse(
                "admin",
                raw.admin.as_deref(),
                "an address and port, such as 127.0.0.1:9180",
                || SocketAddr::from(([127, 0, 0, 1], 9180)),
            ),
            state: PathBuf::from(raw.state.as_deref().unwrap_or("portcullis-state")),
            events_per_second: whole(raw.events_per_second, 2_000),
            drain: self.duration("drain", raw.drain.as_deref(), 30 * SECOND),
            warnings: Vec::new(),
            listeners,
        }
    }

    fn listeners(&mut self, raw: &[RawListener]) -> Vec<Listener> {
        let default = [RawListener { address: Some("0.0.0.0:8080".to_owned()), ..RawListener::default() }];
        let raw = if raw.is_empty() { &default } else { raw };
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut listeners = Vec::new();
        for (index, listener) in raw.iter().enumerate() {
            let path = format!("listeners[{index}]");
            let fallback = if listener.tls.is_some() { "https" } else { "http" };
            let name = listener.name.clone().unwrap_or_else(|| fallback.to_owned());
            self.name(&format!("{path}.name"), &name);
            if !names.insert(name.clone()) {
                self.mistakes
                    .add(&format!("{path}.name"), format!("{name:?} is taken; give each listener a name"));
            }
            let at = format!("{path}.address");
            if listener.address.is_none() {
                self.mistakes.add(&at, "missing; write an address and port, such as 0.0.0.0:8080");
            }
            let unset = || SocketAddr::from(([0, 0, 0, 0], 0));
            let what = "an address and port, such as 0.0.0.0:8080";
            let address = self.parse(&at, listener.address.as_deref(), what, unset);
            if address.port() != 0 && !addresses.insert(address) {
                self.mistakes.add(&at, format!("{address} is taken by another listener"));
            }
            let tls = listener.tls.as_ref().and_then(|tls| {
                let path = format!("{path}.tls");
                let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
                    self.mistakes.add(&path, "needs \"certificate\" and \"key\", both PEM files");
                    return None;
                };
                let clients =
                    tls.clients.as_ref().and_then(|raw| self.tls_clients(raw, &format!("{path}.clients")));
                let files = TlsFiles { certificate: certificate.into(), key: key.into(), clients };
                if let Err(error) = tls::acceptor(&files) {
                    self.mistakes.add(&path, error.to_string());
                }
                Some(files)
            });
            listeners.push(Listener { name, address, tls });
        }
        listeners
    }

    fn routes(&mut self, raw: &RawConfig, listeners: &BTreeSet<&str>) -> Vec<Arc<Route>> {
        if raw.routes.is_empty() {
            self.mistakes.add("routes", "missing; name at least one route with its upstreams");
        }
        self.find_rule_sets(&raw.waf);
        let mut names = BTreeSet::new();
        let mut routes = Vec::new();
        for (index, route) in raw.routes.iter().enumerate() {
            let path = format!("routes[{index}]");
            let name = route.name.clone().unwrap_or_else(|| format!("route-{}", index + 1));
            self.name(&format!("{path}.name"), &name);
            if name == "all" {
                self.mistakes
                    .add(&format!("{path}.name"), "\"all\" stands for every route; choose another name");
            }
            if !names.insert(name.clone()) {
                self.mistakes
                    .add(&format!("{path}.name"), format!("{name:?} is taken; give each route a name"));
            }
            let auth = self.requirement(route.auth.as_ref(), &path, raw);
            let login = route.login.as_ref().and_then(|login| self.login(login, &path, raw));
            let route = self.route(route, name, &path, listeners, &raw.waf);
            routes.extend(route.map(|route| Arc::new(Route { number: index, auth, login, ..route })));
        }
        routes
    }

    /// `None` if its rules have mistakes.
    fn route(
        &mut self,
        raw: &RawRoute,
        name: String,
        path: &str,
        listeners: &BTreeSet<&str>,
        waf: &RawWaf,
    ) -> Option<Route> {
        for (index, listener) in raw.matches.listeners.iter().enumerate() {
            if !listeners.contains(listener.as_str()) {
                let known = listeners.iter().copied().collect::<Vec<_>>().join(", ");
                let at = format!("{path}.match.listeners[{index}]");
                self.mistakes.add(&at, format!("there is no listener {listener:?}; there are: {known}"));
            }
        }
        let hosts = self.each(&format!("{path}.match.hosts"), &raw.matches.hosts, parse_host);
        let paths = self.each(&format!("{path}.match.paths"), &raw.matches.paths, parse_prefix);
        let methods = self.each(&format!("{path}.match.methods"), &raw.matches.methods, parse_method);
        let upstreams_at = format!("{path}.upstreams");
        if raw.upstreams.is_empty() {
            self.mistakes.add(&upstreams_at, "missing; write \"upstreams: [{url: http://host:port}]\"");
        }
        let mut upstreams = Vec::new();
        for (index, upstream) in raw.upstreams.iter().enumerate() {
            match parse_upstream(upstream.url.as_deref().unwrap_or_default()) {
                Ok(uri) => upstreams.push(uri),
                Err(message) => self.mistakes.add(&format!("{upstreams_at}[{index}].url"), message),
            }
        }
        let strip_prefix = raw.strip_prefix == Some(RawToggle::On);
        if strip_prefix && paths.is_empty() {
            self.mistakes.add(&format!("{path}.strip_prefix"), "needs match.paths to know the prefix");
        }
        let plan = self.rule_plan(&raw.waf, path, waf);
        Some(Route {
            number: 0,
            auth: None,
            login: None,
            name,
            rules: self.compile_rules(&plan)?,
            inbound_threshold: plan.inbound_threshold,
            outbound_threshold: plan.outbound_threshold,
            listeners: raw.matches.listeners.clone(),
            hosts,
            paths,
            methods,
            upstreams,
            strip_prefix,
            preserve_host: raw.preserve_host == Some(RawToggle::On),
            mode: mode(raw.waf.mode.or(waf.mode).unwrap_or(RawMode::Block)),
            on_error: match raw.waf.on_error.or(waf.on_error) {
                Some(RawOnError::Pass) => OnError::Pass,
                Some(RawOnError::Block) | None => OnError::Block,
            },
            oversize: match raw.waf.oversize.or(waf.oversize) {
                Some(RawOversize::Reject) => Oversize::Reject,
                Some(RawOversize::Pass) => Oversize::Pass,
                Some(RawOversize::InspectPrefix) | None => Oversize::InspectPrefix,
            },
            upstream_timeout: self.duration(&format!("{path}.timeout"), raw.timeout.as_deref(), MINUTE),
            record: self.recording(raw, path, waf),
        })
    }

    fn limits(&mut self, raw: &RawLimits) -> Limits {
        let body = self.size("limits.body", raw.body.as_deref(), 10 * MIB);
        let inspect = self.size("limits.inspect", raw.inspect.as_deref(), MIB.min(body));
        if inspect > body {
            let message = "cannot be more than limits.body; larger bodies are refused anyway";
            self.mistakes.add("limits.inspect", message);
        }
        let limits = Limits {
            header_bytes: bytes(self.size("limits.headers", raw.headers.as_deref(), 16 * KIB)),
            header_count: whole(raw.header_count, 100) as usize,
            uri_bytes: bytes(self.size("limits.uri", raw.uri.as_deref(), 8 * KIB)),
            body_bytes: body,
            inspect_bytes: bytes(inspect),
            header_timeout: self.duration(
                "limits.header_timeout",
                raw.header_timeout.as_deref(),
                10 * SECOND,
            ),
            body_idle_timeout: self.duration(
                "limits.body_idle_timeout",
                raw.body_idle_timeout.as_deref(),
                10 * SECOND,
            ),
            keep_alive: self.duration("limits.keep_alive", raw.keep_alive.as_deref(), MINUTE),
            connections: whole(raw.connections, 10_000) as usize,
            response_inspect_bytes: bytes(self.size(
                "limits.response_inspect",
                raw.response_inspect.as_deref(),
                512 * KIB,
            )),
            response_hold: self.duration("limits.response_hold", raw.response_hold.as_deref(), SECOND),
        };
        for (path, value) in
            [("limits.header_count", limits.header_count), ("limits.connections", limits.connections)]
        {
            if value == 0 {
                self.mistakes.add(path, "must be at least 1: nothing could be served");
            }
        }
        for (path, value, most) in [
            ("limits.headers", limits.header_bytes, MIB),
            ("limits.uri", limits.uri_bytes, 64 * KIB - 2),
            ("limits.inspect", limits.inspect_bytes, 64 * MIB),
            ("limits.response_inspect", limits.response_inspect_bytes, 64 * MIB),
        ] {
            if value as u64 > most {
                self.mistakes.add(
                    path,
                    format!("is more than {most} bytes, which one request may not hold in memory"),
                );
            }
        }
        limits
    }

    fn waf(&mut self, raw: &RawWaf) -> Waf {
        let api_key = raw.api_key_header.as_deref();
        let api_key_header = api_key.and_then(|name| match HeaderName::from_str(name) {
            Ok(name) => Some(name),
            Err(_) => {
                self.mistakes.add("waf.api_key_header", format!("{name:?} is not a header name"));
                None
            }
        });
        let keys = self.each("waf.model_keys", &raw.model_keys, parse_key);
        Waf {
            model: raw.model.as_deref().and_then(|file| match existing(file) {
                Ok(path) => Some(path),
                Err(message) => {
                    self.mistakes.add("waf.model", message);
                    None
                }
            }),
            model_keys: keys,
            provisional: match raw.provisional {
                Some(RawProvisional::Block) => Mode::Block,
                Some(RawProvisional::Detect) | None => Mode::Detect,
            },
            base: mode(raw.base.unwrap_or(RawMode::Detect)),
            block_clients: toggle(raw.block_clients, Toggle::On),
            breaker: toggle(raw.breaker, Toggle::On),
            challenger: Challenger {
                requests: raw.challenger.requests.unwrap_or(2_000),
                within: self.duration("waf.challenger.within", raw.challenger.within.as_deref(), DAY),
            },
            block_ttl: self.duration("waf.block_ttl", raw.block_ttl.as_deref(), 10 * MINUTE),
            release_hold: self.duration("waf.release_hold", raw.release_hold.as_deref(), DAY),
            allow: self.networks("waf.allow", &raw.allow),
            api_key_header,
            session_cookie: raw.session_cookie.clone(),
            clients: self.at_least_one("waf.clients", raw.clients, 100_000) as usize,
        }
    }

    fn store(&mut self, raw: &RawStore) -> StoreConfig {
        let RawStore::Redis(url) = raw else { return StoreConfig::Embedded };
        if !(url.starts_with("redis://") || url.starts_with("rediss://")) {
            // The URL may hold a password and is not repeated.
            self.mistakes.add("store.redis", "is not a URL; write redis://host:6379 or rediss://host:6379");
        }
        StoreConfig::Redis(url.clone())
    }

    /// A name goes into Redis keys, metrics and file names.
    pub(super) fn name(&mut self, path: &str, name: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            self.mistakes.add(
                path,
                format!("{name:?} is not a name: use 1 to 64 letters, digits, \"-\", \"_\", \".\""),
            );
        }
    }

    fn networks(&mut self, path: &str, texts: &[String]) -> Vec<IpNet> {
        self.each(path, texts, |text| {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| format!("{text:?} is not an address or a network such as 10.0.0.0/8"))
        })
    }

    pub(super) fn each<T>(
        &mut self,
        path: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(message) => self.mistakes.add(&format!("{path}[{index}]"), message),
            }
        }
        values
    }

    fn parse<T: FromStr>(
        &mut self,
        path: &str,
        text: Option<&str>,
        what: &str,
        default: impl Fn() -> T,
    ) -> T {
        let Some(text) = text else { return default() };
        text.parse().unwrap_or_else(|_| {
            self.mistakes.add(path, format!("{text:?} is not {what}"));
            default()
        })
    }

    pub(super) fn duration(&mut self, path: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        match humantime::parse_duration(text) {
            Ok(duration) if duration >= Duration::from_millis(1) && duration <= 366 * DAY => duration,
            _ => {
                self.mistakes.add(path, format!("{text:?} is not a duration; write 250ms, 10s, 5m or 24h"));
                default
            }
        }
    }

    pub(super) fn size(&mut self, path: &str, text: Option<&str>, default: u64) -> u64 {
        let Some(text) = text else { return default };
        let has_unit = text.trim_end().ends_with(|last: char| last.is_ascii_alphabetic());
        match text.parse::<ByteSize>() {
            Ok(size) if has_unit && size.as_u64() > 0 => size.as_u64(),
            _ => {
                self.mistakes.add(path, format!("{text:?} is not a size; write 512B, 16KiB or 10MiB"));
                default
            }
        }
    }

    pub(super) fn at_least_one(&mut self, path: &str, value: Option<u64>, default: u32) -> u32 {
        if value == Some(0) {
            self.mistakes.add(path, "must be at least 1");
        }
        whole(value, default)
    }
}

/// Larger numbers were refused by the schema check.
fn whole(value: Option<u64>, default: u32) -> u32 {
    value.map_or(default, |value| u32::try_from(value).unwrap_or(u32::MAX))
}

pub(super) fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn mode(raw: RawMode) -> Mode {
    match raw {
        RawMode::Off => Mode::Off,
        RawMode::Detect => Mode::Detect,
        RawMode::Block => Mode::Block,
    }
}

pub(super) fn toggle(raw: Option<RawToggle>, default: Toggle) -> Toggle {
    match raw {
        None => default,
        Some(RawToggle::On) => Toggle::On,
        Some(RawToggle::Off) => Toggle::Off,
    }
}

#[cfg(test)]
mod tests;
