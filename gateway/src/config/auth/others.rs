//! Methods that ask somebody else, or are proved by more than a header.

use std::{fmt, fs, sync::Arc, time::Duration};

use http::{HeaderName, Uri, header};
use zeroize::{Zeroize, Zeroizing};

use super::{ClaimNames, Jwt, tokens::claim_names};
use crate::{
    auth::jws::Algorithm,
    config::{
        TlsClients, Toggle,
        auth::Source,
        compile::{Compiler, DAY, KIB, MINUTE, bytes, toggle},
        parse::{parse_host, parse_key, parse_prefix},
        raw::{
            auth::{RawCertificate, RawForward, RawIntrospection, RawOidc, RawSignature, RawSigningKey},
            tls::RawTlsClients,
        },
    },
};

/// Fields of HTTP Message Signatures (RFC 9421) and of digests of bodies (RFC 9530).
pub const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// See [`SIGNATURE_INPUT`].
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");
/// See [`SIGNATURE_INPUT`].
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Fewest bytes of a secret with which requests are signed.
const SECRET: usize = 32;

/// Text that is not shown, and overwritten when it is no longer needed.
#[derive(Clone, Default)]
pub struct SecretText(String);

impl SecretText {
    /// Keeps `text` to itself.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text, for where it is used.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// This gateway, at an issuer.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its name there.
    pub id: String,
    /// Its secret there; empty for none.
    pub secret: SecretText,
}

/// Opaque tokens, about which their issuer is asked.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// Where.
    pub address: Uri,
    /// As whom.
    pub client: Client,
    /// What answers must say the issuer is, if they say it.
    pub issuer: Option<String>,
    /// Names of which `aud` must hold one; empty if that does not matter.
    pub audience: Vec<String>,
    /// How long a good token is not asked about again.
    pub cache: Duration,
    /// Claims that name groups and scopes.
    pub names: ClaimNames,
    /// Whether the token goes on to the upstream.
    pub forward: Toggle,
}

/// Signed requests.
#[derive(Debug, Clone)]
pub struct Signature {
    /// How old a signature may be.
    pub window: Duration,
    /// Whether the signature goes on to the upstream.
    pub forward: Toggle,
}

/// Client certificates.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Names that are accepted, in lower case; empty for all.
    pub names: Vec<String>,
}

/// An external service that decides about each request.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Where it is asked.
    pub address: Uri,
    /// Headers of the request that it sees.
    pub sends: Vec<HeaderName>,
    /// Headers of its answer that go on.
    pub copies: Vec<HeaderName>,
    /// Header of its answer that names the caller.
    pub user_header: Option<HeaderName>,
    /// Header of its answer that names groups.
    pub groups_header: Option<HeaderName>,
}

/// Login of people at an OpenID provider.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// How the provider's tokens are checked.
    pub tokens: Jwt,
    /// This gateway, at the provider.
    pub client: Client,
    /// Path to which the provider sends browsers back.
    pub callback: String,
    /// The same as an address.
    pub redirect: String,
    /// Path that ends a session.
    pub logout: String,
    /// Where the provider sends browsers after a logout.
    pub after_logout: Option<String>,
    /// What is asked for, parted by blanks.
    pub scopes: String,
    /// How long a session lasts.
    pub session: Duration,
    /// Name of the session's cookie.
    pub cookie: String,
    /// What seals sessions; made anew with each start without.
    pub key: Option<Arc<Zeroizing<[u8; 32]>>>,
}

impl Oidc {
    /// Whether browsers reach the site by TLS.
    pub fn is_secure(&self) -> bool {
        self.redirect.starts_with("https://")
    }
}

impl Compiler {
    /// Tokens about which an issuer is asked.
    pub(super) fn introspection(&mut self, raw: &RawIntrospection, path: &str) -> Introspection {
        let address = self.needed(&format!("{path}.url"), raw.url.as_deref());
        let id = raw.client_id.clone().unwrap_or_default();
        let secret = raw.client_secret.as_ref().map(|secret| SecretText::new(&secret.0)).unwrap_or_default();
        if id.is_empty() || secret.expose().is_empty() {
            self.mistakes
                .add(path, "needs \"client_id\" and \"client_secret\": issuers answer known clients only");
        }
        let cache = self.duration(&format!("{path}.cache"), raw.cache.as_deref(), MINUTE);
        if cache > DAY {
            self.mistakes
                .add(&format!("{path}.cache"), "is more than a day: as long may a revoked token be used");
        }
        Introspection {
            address,
            client: Client { id, secret },
            issuer: raw.issuer.clone(),
            audience: raw.audience.clone(),
            cache,
            names: claim_names(raw.groups_claim.as_ref(), None),
            forward: toggle(raw.forward, Toggle::Off),
        }
    }

    /// Signed requests.
    pub(super) fn signature(&mut self, raw: &RawSignature, path: &str) -> Signature {
        let window = self.duration(&format!("{path}.window"), raw.window.as_deref(), 5 * MINUTE);
        if window < Duration::from_secs(10) || window > 60 * MINUTE {
            self.mistakes.add(&format!("{path}.window"), "has to lie between 10s and 1h");
        }
        Signature { window, forward: toggle(raw.forward, Toggle::Off) }
    }

    /// Secrets with which a consumer signs.
    pub(super) fn signing_keys(
        &mut self,
        path: &str,
        raw: &[RawSigningKey],
    ) -> Vec<(String, Arc<SecretText>)> {
        let mut keys = Vec::with_capacity(raw.len());
        for (index, key) in raw.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let id = key.id.clone().unwrap_or_default();
            self.name(&format!("{path}.id"), &id);
            let secret = key.secret.as_ref().map(|secret| SecretText::new(&secret.0)).unwrap_or_default();
            if secret.expose().len() < SECRET {
                let message = "is shorter than 32 bytes and can be guessed; `openssl rand -hex 32` makes one";
                self.mistakes.add(&format!("{path}.secret"), message);
            }
            keys.push((id, Arc::new(secret)));
        }
        keys
    }

    /// Client certificates.
    pub(super) fn certificate(&mut self, raw: &RawCertificate, path: &str) -> Certificate {
        Certificate { names: self.each(&format!("{path}.names"), &raw.names, parse_host) }
    }

    /// An external service.
    pub(super) fn forward_auth(&mut self, raw: &RawForward, path: &str) -> Forward {
        let address = self.needed(&format!("{path}.url"), raw.url.as_deref());
        let mut names = |key: &str, texts: &[String]| -> Vec<HeaderName> {
            let named = texts.iter().enumerate();
            named
                .filter_map(|(index, name)| self.header_name(&format!("{path}.{key}[{index}]"), name))
                .collect()
        };
        let copies = names("copies", &raw.copies);
        let sends = match &raw.sends {
            Some(texts) => names("sends", texts),
            None => vec![header::AUTHORIZATION, header::COOKIE],
        };
        let mut one = |key: &str, text: &Option<String>| {
            text.as_deref().and_then(|name| self.header_name(&format!("{path}.{key}"), name))
        };
        Forward {
            address,
            sends,
            copies,
            user_header: one("user_header", &raw.user_header),
            groups_header: one("groups_header", &raw.groups_header),
        }
    }

    /// Login at an OpenID provider.
    pub(super) fn oidc(&mut self, raw: &RawOidc, path: &str, method: &str) -> Oidc {
        let issuer = raw.issuer.clone().unwrap_or_default();
        let id = raw.client_id.clone().unwrap_or_default();
        if id.is_empty() {
            self.mistakes
                .add(&format!("{path}.client_id"), "missing; write the name of this gateway at the provider");
        }
        let metadata = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let source = self
            .address(&format!("{path}.issuer"), &metadata)
            .map_or(Source::Given, |uri| Source::Metadata { uri, issuer: issuer.clone() });
        let site = self.needed(&format!("{path}.site"), raw.site.as_deref());
        if site.path() != "/" || site.query().is_some() {
            let message = "has a path; write scheme and host alone, such as https://shop.example.com";
            self.mistakes.add(&format!("{path}.site"), message);
        }
        let mut local = |key: &str, text: &Option<String>, default: &str| {
            let text = text.as_deref().unwrap_or(default);
            parse_prefix(text).unwrap_or_else(|message| {
                self.mistakes.add(&format!("{path}.{key}"), message);
                String::new()
            })
        };
        let callback = local("callback", &raw.callback, "/.portcullis/callback");
        let logout = local("logout", &raw.logout, "/.portcullis/logout");
        let key = raw.key.as_deref().and_then(|file| match read_session_key(file) {
            Ok(key) => Some(Arc::new(key)),
            Err(message) => {
                self.mistakes.add(&format!("{path}.key"), message);
                None
            }
        });
        let session = self.duration(&format!("{path}.session"), raw.session.as_deref(), 8 * 60 * MINUTE);
        let secret = raw.client_secret.as_ref().map(|secret| SecretText::new(&secret.0)).unwrap_or_default();
        let is_secure = site.scheme_str() == Some("https");
        let prefix = if is_secure { "__Host-" } else { "" };
        let scopes = if raw.scopes.is_empty() { "openid profile".to_owned() } else { raw.scopes.join(" ") };
        if !scopes.split(' ').any(|scope| scope == "openid") {
            self.mistakes.add(&format!("{path}.scopes"), "have to hold \"openid\"");
        }
        Oidc {
            tokens: Jwt {
                issuer,
                audience: vec![id.clone()],
                algorithms: Algorithm::asymmetric(),
                keys: Vec::new(),
                source,
                refresh: 10 * MINUTE,
                leeway: Duration::from_secs(30),
                most_bytes: bytes(16 * KIB),
                header: None,
                names: claim_names(raw.groups_claim.as_ref(), None),
                forward: Toggle::Off,
            },
            client: Client { id, secret },
            redirect: format!("{}{callback}", site.to_string().trim_end_matches('/')),
            callback,
            logout,
            after_logout: raw.after_logout.clone(),
            scopes,
            session,
            cookie: format!("{prefix}portcullis-{method}"),
            key,
        }
    }

    /// Whose certificates clients of a listener may show.
    pub(in crate::config) fn tls_clients(&mut self, raw: &RawTlsClients, path: &str) -> Option<TlsClients> {
        let Some(file) = &raw.ca else {
            self.mistakes.add(
                &format!("{path}.ca"),
                "missing; name the file with the certificates that sign clients'",
            );
            return None;
        };
        let ca = self.certificates(&format!("{path}.ca"), file);
        Some(TlsClients { ca, required: toggle(raw.required, Toggle::Off) })
    }

    /// An address that has to be there.
    fn needed(&mut self, path: &str, text: Option<&str>) -> Uri {
        match text {
            Some(text) => self.address(path, text).unwrap_or_default(),
            None => {
                self.mistakes.add(path, "missing; write it as https://id.example.com/path");
                Uri::default()
            }
        }
    }
}

fn read_session_key(file: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let text = fs::read_to_string(file).map(Zeroizing::new).map_err(|error| format!("{file:?}: {error}"))?;
    let wrong = |_| format!("{file:?} holds no key: 64 hexadecimal digits (openssl rand -hex 32)");
    parse_key(text.trim()).map(Zeroizing::new).map_err(wrong)
}
