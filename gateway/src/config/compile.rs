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

use super::access::NetworkFiles;
use super::admin::files_of_admin;
use super::auth::{files_of_auth, hide_secrets};
use super::{
    Challenger, Config, Listener, Mistakes, Mode, OnError, Oversize, Route, Routing, Sni, StoreConfig,
    Toggle, UpstreamGroup, Waf, document,
    mistakes::Collector,
    openapi::documents,
    parse::{existing, parse_host, parse_key, parse_method, parse_prefix},
    raw::{
        RawConfig, RawListener, RawMode, RawOnError, RawOversize, RawProvisional, RawRoute, RawSni, RawStore,
        RawToggle, RawWaf,
        responses::{RawLifecycle, RawResponses},
        upstreams::RawOrigin,
    },
    rule_plan::Plans,
    shape::{Environment, Shape},
    tls::files_of_tls,
};
use crate::geo::Geo;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * 1024;

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
    let mut written = document.kind.to_json();
    hide_secrets(&mut written);
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
    compile(&raw, mistakes, file).map(|config| Config { document: written, ..config })
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
        upstreams: vec![RawOrigin { url: Some(upstream.to_owned()), weight: None }],
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
    let mut compiler = Compiler {
        mistakes,
        plans: Plans::default(),
        warnings: Vec::new(),
        geo: Arc::default(),
        network_files: NetworkFiles::default(),
    };
    let mut config = compiler.config(raw);
    config.files = files_of_tls(&raw.listeners);
    config.files.extend(compiler.plans.files.opened());
    config.files.extend(files_of_auth(raw));
    config.files.extend(documents(raw));
    config.files.extend(compiler.network_files.opened());
    config.files.extend([&raw.geo.database, &raw.geo.asn].into_iter().flatten().map(PathBuf::from));
    config.files.extend(files_of_admin(raw));
    config.files.extend(config.routes.iter().flat_map(|route| route.upstream.files.iter().cloned()));
    config.warnings = compiler.plans.warnings(&compiler.mistakes, file);
    let more = compiler.warnings.iter();
    config
        .warnings
        .extend(more.map(|(path, what)| format!("{file}:{}: {path}: {what}", compiler.mistakes.line(path))));
    match compiler.mistakes.finish(file) {
        Some(mistakes) => Err(mistakes),
        None => Ok(config),
    }
}

pub(super) struct Compiler {
    pub(super) mistakes: Collector,
    pub(super) plans: Plans,
    /// What is not wrong but surely not meant: where, and what.
    pub(super) warnings: Vec<(String, String)>,
    /// Where addresses lie, once that is known.
    pub(super) geo: Arc<Geo>,
    pub(super) network_files: NetworkFiles,
}

impl Compiler {
    fn config(&mut self, raw: &RawConfig) -> Config {
        if raw.version != Some(1) {
            self.mistakes.add("version", "this gateway reads version 1; write \"version: 1\"");
        }
        self.geo = Arc::new(self.geo(&raw.geo));
        let listeners = self.listeners(&raw.listeners);
        let responses =
            self.responses(&raw.responses, &RawLifecycle::default(), "", &RawResponses::default());
        let names: BTreeSet<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let upstreams = self.groups(&raw.upstreams);
        let routes = self.routes(raw, &names, &upstreams);
        Config {
            routes,
            responses,
            geo: Arc::clone(&self.geo),
            trusted_proxies: self.networks("trusted_proxies", &raw.trusted_proxies),
            auth: self.auth(raw),
            limits: self.limits(&raw.limits),
            waf: self.waf(&raw.waf),
            store: self.store(&raw.store),
            records: self.records(raw),
            admin: self.admin(raw.admin.as_ref()),
            audit_rotate: self.audit_rotate(raw),
            state: PathBuf::from(raw.state.as_deref().unwrap_or("portcullis-state")),
            events_per_second: whole(raw.events_per_second, 2_000),
            drain: self.duration("drain", raw.drain.as_deref(), 30 * SECOND),
            document: serde_json::Value::Null,
            files: Vec::new(),
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
            let tls = listener.tls.as_ref().and_then(|tls| self.tls(tls, &format!("{path}.tls")));
            let proxy_protocol = self.networks(&format!("{path}.proxy_protocol"), &listener.proxy_protocol);
            let sni = match listener.sni {
                Some(RawSni::Any) => Sni::Any,
                Some(RawSni::Strict) | None => Sni::Strict,
            };
            let https_port = tls.is_none().then(|| self.https_port(listener, raw, &path)).flatten();
            let access = self.access(&listener.networks, &listener.countries, &path);
            let reuse_port = toggle(listener.reuse_port, Toggle::Off);
            listeners.push(Listener {
                name,
                address,
                tls,
                https_port,
                proxy_protocol,
                sni,
                reuse_port,
                access,
            });
        }
        self.check_challenges(&listeners);
        listeners
    }

    /// Where clients of a plain listener are sent for HTTPS: by default to the first TLS listener, if there is one.
    fn https_port(&mut self, listener: &RawListener, all: &[RawListener], path: &str) -> Option<u16> {
        let secure = all.iter().find(|other| other.tls.is_some())?;
        if listener.redirect_to_https == Some(RawToggle::Off) {
            return None;
        }
        match listener.https_port {
            Some(port) => match u16::try_from(port) {
                Ok(port) if port > 0 => Some(port),
                _ => {
                    self.mistakes.add(&format!("{path}.https_port"), format!("{port} is not a port"));
                    None
                }
            },
            None => Some(secure.address.as_ref()?.parse::<SocketAddr>().ok()?.port()),
        }
    }

    fn routes(
        &mut self,
        raw: &RawConfig,
        listeners: &BTreeSet<&str>,
        upstreams: &[Arc<UpstreamGroup>],
    ) -> Vec<Arc<Route>> {
        if raw.routes.is_empty() {
            self.mistakes.add("routes", "missing; name at least one route with its upstreams");
        }
        self.find_rule_sets(&raw.waf);
        let mut names = BTreeSet::new();
        let mut limit_names = BTreeSet::new();
        let everywhere = self.rate_limits(&raw.rate_limits, "rate_limits", "limit", &mut limit_names);
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
            let routing = self.routing(route, &path, upstreams);
            let upstream = self.route_group(route, &name, &path, upstreams);
            let own =
                self.rate_limits(&route.rate_limits, &format!("{path}.rate_limits"), &name, &mut limit_names);
            let rate_limits = everywhere.iter().cloned().chain(own).collect();
            let auth = self.requirement(route.auth.as_ref(), &path, raw);
            let openapi = route.openapi.as_ref().and_then(|raw| self.openapi(raw, &path));
            self.check_published(route, auth.as_deref(), raw, &path);
            let login = route.login.as_ref().and_then(|login| self.login(login, &path, raw));
            let route = self.route(route, name, &path, listeners, raw, upstream);
            routes.extend(
                route.map(|route| Arc::new(Route { rate_limits, routing, auth, login, openapi, ..route })),
            );
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
        top: &RawConfig,
        upstream: Arc<UpstreamGroup>,
    ) -> Option<Route> {
        let waf = &top.waf;
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
        let strip_prefix = raw.strip_prefix == Some(RawToggle::On);
        if strip_prefix && paths.is_empty() {
            self.mistakes.add(&format!("{path}.strip_prefix"), "needs match.paths to know the prefix");
        }
        let plan = self.rule_plan(&raw.waf, path, waf);
        Some(Route {
            access: self.access(&raw.networks, &raw.countries, path),
            shape: self.request_shape(&raw.shape, path, &top.shape),
            transform: raw.transform.as_ref().map(|raw| Box::new(self.transform(raw, path))),
            cors: raw.cors.as_ref().map(|cors| Box::new(self.cors(cors, path, &methods))),
            auth: None,
            login: None,
            openapi: None,
            name,
            rules: self.compile_rules(&plan)?,
            inbound_threshold: plan.inbound_threshold,
            outbound_threshold: plan.outbound_threshold,
            listeners: raw.matches.listeners.clone(),
            hosts,
            paths,
            methods,
            upstream,
            routing: Routing::default(),
            strip_prefix,
            rate_limits: Vec::new(),
            responses: self.responses(&raw.responses, &raw.lifecycle, path, &top.responses),
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

    pub(super) fn networks(&mut self, path: &str, texts: &[String]) -> Vec<IpNet> {
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
pub(super) fn whole(value: Option<u64>, default: u32) -> u32 {
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
