//! Who may administer: listeners, tokens, roles; and routes that publish the admin API.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
};

use ipnet::IpNet;

use super::{
    ListenerTls, Toggle,
    auth::{Requirement, parse_key_hash},
    compile::{Compiler, KIB, MIB},
    raw::{
        RawConfig, RawRoute, RawToggle,
        admin::{RawAdmin, RawAdminAccess, RawAdminListener, RawAdminTls, RawAdminToken, RawRole},
    },
};

/// What somebody may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Judge blocks: release and confirm.
    Reviewer,
    /// Block, allow, choose models, reload the configuration.
    Operator,
    /// Read the audit log.
    Admin,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Reviewer => "reviewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Access to administration.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it is served beside the socket; one at least.
    pub listeners: Vec<AdminListener>,
    /// Tokens that are known.
    pub tokens: Vec<AdminToken>,
    /// Roles by names in client certificates, in lower case.
    pub certificates: Vec<(String, Role)>,
    /// Roles by groups of consumers.
    pub groups: Vec<(String, Role)>,
    /// Wrong tokens that one address may show in a minute.
    pub failures: u32,
}

/// One admin listener.
#[derive(Debug, Clone)]
pub struct AdminListener {
    /// Address and port; port 0 picks a free one.
    pub address: SocketAddr,
    /// Its certificate.
    pub tls: Option<ListenerTls>,
    /// Networks that may connect; all if empty.
    pub networks: Vec<IpNet>,
}

/// One token. Only its hash is known.
#[derive(Debug, Clone)]
pub struct AdminToken {
    /// Whose it is.
    pub name: String,
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// What it allows.
    pub role: Role,
}

impl Admin {
    /// Serves at another address than the configuration says, by order of the command line.
    ///
    /// # Errors
    /// It could be reached from outside without TLS, or by anybody.
    pub fn move_to(&mut self, address: SocketAddr) -> Result<(), String> {
        match self.listeners.first_mut() {
            Some(listener) => listener.address = address,
            None => self.listeners.push(AdminListener { address, tls: None, networks: Vec::new() }),
        }
        self.listeners.first().map_or(Ok(()), |listener| self.check_reach(listener))
    }

    /// A listener that others than this machine reach must keep what is said to itself, and know who calls.
    fn check_reach(&self, listener: &AdminListener) -> Result<(), String> {
        if listener.address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let address = listener.address;
        let Some(tls) = &listener.tls else {
            return Err(format!(
                "{address} can be reached from outside this machine and has no \"tls\": give it a certificate, or use \
                 127.0.0.1"
            ));
        };
        let by_certificate = tls.clients.is_some() && !self.certificates.is_empty();
        if self.tokens.is_empty() && !by_certificate {
            return Err(format!(
                "{address} can be reached from outside this machine, and nobody could show who they are: name a token \
                 in admin.tokens, or tls.clients here and admin.certificates"
            ));
        }
        Ok(())
    }
}

impl Compiler {
    /// Access to administration.
    pub(super) fn admin(&mut self, raw: Option<&RawAdmin>) -> Admin {
        let nothing = RawAdminAccess::default();
        let (address, raw) = match raw {
            None => (None, &nothing),
            Some(RawAdmin::Address(address)) => (Some(address.as_str()), &nothing),
            Some(RawAdmin::Access(access)) => (None, &**access),
        };
        let mut admin = Admin {
            listeners: Vec::new(),
            tokens: self.admin_tokens(&raw.tokens),
            certificates: roles(&raw.certificates, str::to_ascii_lowercase),
            groups: roles(&raw.groups, str::to_owned),
            failures: self.at_least_one("admin.failures", raw.failures, 10),
        };
        if raw.listeners.is_empty() {
            let default = SocketAddr::from(([127, 0, 0, 1], 9180));
            let address = self.admin_address("admin", Some(address.unwrap_or("127.0.0.1:9180")), default);
            let listener = AdminListener { address, tls: None, networks: Vec::new() };
            self.admit_listener(&mut admin, listener, "admin");
        }
        for (index, listener) in raw.listeners.iter().enumerate() {
            let path = format!("admin.listeners[{index}]");
            let listener = self.admin_listener(listener, &path);
            if admin.listeners.iter().any(|o| o.address == listener.address && listener.address.port() != 0) {
                self.mistakes.add(&format!("{path}.address"), "is taken by another admin listener");
            }
            self.admit_listener(&mut admin, listener, &format!("{path}.address"));
        }
        admin
    }

    fn admit_listener(&mut self, admin: &mut Admin, listener: AdminListener, path: &str) {
        if let Err(message) = admin.check_reach(&listener) {
            self.mistakes.add(path, message);
        }
        admin.listeners.push(listener);
    }

    fn admin_address(&mut self, path: &str, text: Option<&str>, default: SocketAddr) -> SocketAddr {
        let example = "an address and port, such as 127.0.0.1:9180";
        match text.map(str::parse) {
            Some(Ok(address)) => return address,
            Some(Err(_)) => {
                self.mistakes.add(path, format!("{:?} is not {example}", text.unwrap_or_default()));
            }
            None => self.mistakes.add(path, format!("missing; write {example}")),
        }
        default
    }

    fn admin_listener(&mut self, raw: &RawAdminListener, path: &str) -> AdminListener {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        AdminListener {
            address: self.admin_address(&format!("{path}.address"), raw.address.as_deref(), nowhere),
            tls: raw.tls.as_ref().and_then(|raw| self.admin_tls(raw, &format!("{path}.tls"))),
            networks: self.networks(&format!("{path}.networks"), &raw.networks),
        }
    }

    fn admin_tls(&mut self, raw: &RawAdminTls, path: &str) -> Option<ListenerTls> {
        let clients = raw.clients.as_ref().and_then(|raw| self.tls_clients(raw, &format!("{path}.clients")));
        self.plain_tls(raw.certificate.clone(), raw.key.clone(), clients, path)
    }

    fn admin_tokens(&mut self, raw: &[RawAdminToken]) -> Vec<AdminToken> {
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        let mut tokens = Vec::with_capacity(raw.len());
        for (index, token) in raw.iter().enumerate() {
            let path = format!("admin.tokens[{index}]");
            let name = token.name.clone().unwrap_or_default();
            self.name(&format!("{path}.name"), &name);
            if !names.insert(name.clone()) {
                let message = format!("{name:?} is taken; the audit log could not tell the two apart");
                self.mistakes.add(&format!("{path}.name"), message);
            }
            let Some(hash) = parse_key_hash(&token.hash.0) else {
                // What stands there may be the token itself and is not repeated.
                let message = "is not the hash of a token; write \"sha256:\" and 64 hexadecimal digits, as `gateway \
                               hash key` prints them";
                self.mistakes.add(&format!("{path}.hash"), message);
                continue;
            };
            if !hashes.insert(hash) {
                self.mistakes
                    .add(&format!("{path}.hash"), "is given twice; give each token a name of its own");
            }
            tokens.push(AdminToken { name, hash, role: token.role.map_or(Role::Viewer, role) });
        }
        tokens
    }

    /// A route that publishes the admin API has to know who calls.
    pub(super) fn check_published(
        &mut self,
        route: &RawRoute,
        auth: Option<&Requirement>,
        raw: &RawConfig,
        path: &str,
    ) {
        if route.admin != Some(RawToggle::On) {
            return;
        }
        match auth {
            None => {
                self.mistakes.add(&format!("{path}.auth"), "missing; a route with \"admin: on\" needs it")
            }
            Some(auth) if auth.anonymous == Toggle::On => {
                self.mistakes.add(&format!("{path}.auth.anonymous"), "cannot be on where \"admin\" is");
            }
            Some(_) => {}
        }
        let has_groups = matches!(&raw.admin, Some(RawAdmin::Access(access)) if !access.groups.is_empty());
        if !has_groups {
            let message = "nobody could do anything: say which groups have which role, as admin: {groups: {ops: operator}}";
            self.mistakes.add(&format!("{path}.admin"), message);
        }
    }

    /// Size at which the audit log begins its next file, in bytes.
    pub(super) fn audit_rotate(&mut self, raw: &RawConfig) -> u64 {
        let size = self.size("audit.rotate", raw.audit.rotate.as_deref(), 64 * MIB);
        if size < 4 * KIB {
            self.mistakes
                .add("audit.rotate", "is less than 4KiB: every few entries would have a file of their own");
        }
        size
    }
}

/// Files that the admin listeners are made of.
pub(super) fn files_of_admin(raw: &RawConfig) -> Vec<PathBuf> {
    let Some(RawAdmin::Access(access)) = &raw.admin else { return Vec::new() };
    let tls = access.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let files = tls.flat_map(|tls| {
        let ca = tls.clients.as_ref().and_then(|clients| clients.ca.as_ref());
        [tls.certificate.as_ref(), tls.key.as_ref(), ca]
    });
    files.flatten().map(PathBuf::from).collect()
}

fn roles(raw: &BTreeMap<String, RawRole>, spell: fn(&str) -> String) -> Vec<(String, Role)> {
    raw.iter().map(|(name, raw)| (spell(name), role(*raw))).collect()
}

fn role(raw: RawRole) -> Role {
    match raw {
        RawRole::Viewer => Role::Viewer,
        RawRole::Reviewer => Role::Reviewer,
        RawRole::Operator => Role::Operator,
        RawRole::Admin => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn mistakes(admin: &str, route: &str) -> Vec<String> {
        let text = format!(
            "version: 1\nadmin: {admin}\nauth: {{methods: {{keys: {{api_key: {{}}}}}}}}\n\
             routes: [{{name: a, upstreams: [{{url: 'http://10.0.0.1'}}]}}{route}]\n"
        );
        match Config::load(&text, "f") {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes
                .list
                .into_iter()
                .map(|mistake| format!("{}: {}", mistake.path, mistake.message))
                .collect(),
        }
    }

    #[track_caller]
    fn refused(admin: &str, route: &str, place: &str, why: &str) {
        let found = mistakes(admin, route);
        assert!(found.len() == 1 && found[0].starts_with(place) && found[0].contains(why), "{found:?}");
    }

    #[test]
    fn only_a_safe_listener_leaves_the_machine() {
        for fine in [
            "127.0.0.1:9180",
            "'[::1]:0'",
            "{listeners: [{address: '127.0.0.1:1'}, {address: '127.0.0.2:1'}]}",
        ] {
            assert_eq!(mistakes(fine, ""), [""; 0], "{fine}");
        }
        refused("0.0.0.0:9180", "", "admin:", "no \"tls\"");
        refused("'[::]:9180'", "", "admin:", "no \"tls\"");
        refused("{listeners: [{address: '10.0.0.1:1'}]}", "", "admin.listeners[0].address:", "no \"tls\"");
        refused("nowhere", "", "admin:", "not an address");
        let mut config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        assert!(config.admin.move_to("0.0.0.0:1".parse().unwrap()).unwrap_err().contains("tls"));
        assert!(config.admin.move_to("127.0.0.1:1".parse().unwrap()).is_ok());
    }

    #[test]
    fn tokens_are_hashes_with_names() {
        let hash = "a".repeat(64);
        let token =
            |rest: &str| format!("{{tokens: [{{name: a, hash: 'sha256:{hash}', role: operator}}{rest}]}}");
        assert_eq!(mistakes(&token(""), ""), [""; 0]);
        refused(
            &token(&format!(", {{name: a, hash: 'sha256:{}'}}", "b".repeat(64))),
            "",
            "admin.tokens[1].name",
            "taken",
        );
        refused(
            &token(&format!(", {{name: b, hash: 'sha256:{hash}'}}")),
            "",
            "admin.tokens[1].hash",
            "twice",
        );
        let found = mistakes(&token(", {name: b, hash: planted}"), "");
        assert!(found.len() == 1 && !found[0].contains("planted"), "{found:?}");
        refused("{tokens: [], groups: {a: boss}}", "", "admin.groups.a", "viewer");
    }

    #[test]
    fn a_published_route_knows_who_calls() {
        let access = "{groups: {ops: operator}}";
        assert_eq!(mistakes(access, ", {name: b, admin: on, auth: {}}"), [""; 0]);
        refused(access, ", {name: b, admin: on}", "routes[1].auth:", "missing");
        refused(access, ", {name: b, admin: on, auth: {anonymous: on}}", "routes[1].auth.anonymous:", "on");
        refused("127.0.0.1:1", ", {name: b, admin: on, auth: {}}", "routes[1].admin:", "groups");
        let both = ", {name: b, admin: on, auth: {}, upstreams: [{url: 'http://10.0.0.1'}]}";
        refused(access, both, "routes[1].upstreams:", "admin");
    }
}
