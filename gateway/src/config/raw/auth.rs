//! What `portcullis.yaml` says about identity: consumers, methods of authentication, and what routes demand.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroize;

use super::RawToggle;

/// Methods of authentication by name, and what they have in common.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAuth {
    /// Methods of authentication by a name of your choice. Each holds one kind.
    pub(in crate::config) methods: BTreeMap<String, RawMethod>,
    /// What routes demand that say nothing themselves (default: nothing).
    pub(in crate::config) require: Option<RawRequirement>,
    /// File with certificates (PEM) by which issuers are trusted, beside those of the system.
    pub(in crate::config) ca: Option<String>,
    /// How many logins may fail before further ones are refused.
    pub(in crate::config) guessing: RawGuessing,
}

/// One method of authentication: exactly one of these kinds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawMethod {
    /// API keys of consumers, in a header or a query argument.
    pub(in crate::config) api_key: Option<RawApiKey>,
    /// Name and password of consumers (RFC 7617).
    pub(in crate::config) basic: Option<RawBasic>,
    /// JSON Web Tokens (RFC 7519) of one issuer.
    pub(in crate::config) jwt: Option<RawJwt>,
    /// Opaque tokens, about which their issuer is asked (RFC 7662).
    pub(in crate::config) introspection: Option<RawIntrospection>,
    /// Requests signed with a secret of the consumer (RFC 9421, HMAC-SHA-256).
    pub(in crate::config) signature: Option<RawSignature>,
    /// Client certificates, of listeners that ask for them.
    pub(in crate::config) certificate: Option<RawCertificate>,
    /// An external service that decides about each request.
    pub(in crate::config) forward: Option<RawForward>,
    /// Login of people by their browser at an OpenID provider.
    pub(in crate::config) oidc: Option<RawOidc>,
}

/// API keys in a header or a query argument.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawApiKey {
    /// Header that carries the key (default X-Api-Key, unless `query` is given).
    pub(in crate::config) header: Option<String>,
    /// Query argument that carries the key (default none: queries end up in logs of others).
    pub(in crate::config) query: Option<String>,
    /// Whether the key goes on to the upstream (default off).
    pub(in crate::config) forward: Option<RawToggle>,
}

/// Name and password by HTTP Basic.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawBasic {
    /// What browsers show when they ask for the password (default: the method's name).
    pub(in crate::config) realm: Option<String>,
    /// How long a password that was right is not computed again (default 5m).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) cache: Option<String>,
    /// Whether name and password go on to the upstream (default off).
    pub(in crate::config) forward: Option<RawToggle>,
}

/// JSON Web Tokens of one issuer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawJwt {
    /// Who issues them: their `iss`, letter by letter.
    pub(in crate::config) issuer: Option<String>,
    /// Names of which their `aud` must hold one.
    pub(in crate::config) audience: Vec<String>,
    /// Accepts tokens that were made for others (default off).
    pub(in crate::config) any_audience: Option<RawToggle>,
    /// Algorithms that are accepted (default: all by which only the issuer can sign). HS256, HS384 and HS512 have to be
    /// named, and need a secret.
    pub(in crate::config) algorithms: Vec<String>,
    /// Address of the issuer's JWK set, fetched in the background.
    pub(in crate::config) jwks: Option<String>,
    /// Finds the JWK set by the issuer's metadata, at /.well-known/openid-configuration below `issuer` (default off).
    pub(in crate::config) discover: Option<RawToggle>,
    /// How often the set is fetched (default 10m); for a key that is not known also at once, at most every 10s.
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) refresh: Option<String>,
    /// Keys that are given, beside or instead of a fetched set.
    pub(in crate::config) keys: Vec<RawKey>,
    /// How far clocks may differ (default 30s, at most 5m).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) leeway: Option<String>,
    /// Longest token that is read (default 8KiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) max_size: Option<String>,
    /// Header that carries the token alone (default: Authorization, after "Bearer").
    pub(in crate::config) header: Option<String>,
    /// Claim that names the caller's groups (default groups); dots lead into objects.
    pub(in crate::config) groups_claim: Option<String>,
    /// Claim that names the scopes (default scope or scp); dots lead into objects.
    pub(in crate::config) scope_claim: Option<String>,
    /// Whether the token goes on to the upstream (default off).
    pub(in crate::config) forward: Option<RawToggle>,
}

/// Opaque tokens, about which their issuer is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawIntrospection {
    /// Where the issuer is asked.
    pub(in crate::config) url: Option<String>,
    /// Name of this gateway at the issuer.
    pub(in crate::config) client_id: Option<String>,
    /// Its secret there; write "${NAME}" and keep it in the environment.
    pub(in crate::config) client_secret: Option<RawSecret>,
    /// What answers must say the issuer is, if they say it.
    pub(in crate::config) issuer: Option<String>,
    /// Names of which the `aud` of an answer must hold one (default: it does not matter).
    pub(in crate::config) audience: Vec<String>,
    /// How long a good token is not asked about again (default 1m): as long may one be used that was revoked.
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) cache: Option<String>,
    /// Claim that names the caller's groups (default groups); dots lead into objects.
    pub(in crate::config) groups_claim: Option<String>,
    /// Whether the token goes on to the upstream (default off).
    pub(in crate::config) forward: Option<RawToggle>,
}

/// Signed requests: Signature-Input and Signature have to cover @method, @authority, the whole target, and the body by
/// Content-Digest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSignature {
    /// How old a signature may be (default 5m); each is good once.
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) window: Option<String>,
    /// Whether the signature goes on to the upstream (default off).
    pub(in crate::config) forward: Option<RawToggle>,
}

/// Client certificates.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawCertificate {
    /// Names of certificates that are accepted, `*.` stands for one or more labels (default: every one that the
    /// listener's CA signed).
    pub(in crate::config) names: Vec<String>,
}

/// An external service that decides about each request: 2xx lets it pass; 401, 403 and redirections go to the caller.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawForward {
    /// Where it is asked, with GET and X-Forwarded-Method, -Proto, -Host, -Uri and -For.
    pub(in crate::config) url: Option<String>,
    /// Headers of the request that it sees (default Authorization and Cookie).
    pub(in crate::config) sends: Option<Vec<String>>,
    /// Headers of its answer that go on to the upstream; what clients send under these names is dropped.
    pub(in crate::config) copies: Vec<String>,
    /// Header of its answer that names the caller.
    pub(in crate::config) user_header: Option<String>,
    /// Header of its answer that names the caller's groups, parted by commas.
    pub(in crate::config) groups_header: Option<String>,
}

/// Login of people at an OpenID provider. Login and logout paths have to lie on routes that accept this method.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawOidc {
    /// The provider, letter by letter as its metadata say.
    pub(in crate::config) issuer: Option<String>,
    /// Name of this gateway at the provider.
    pub(in crate::config) client_id: Option<String>,
    /// Its secret there (none for a public client); write "${NAME}" and keep it in the environment.
    pub(in crate::config) client_secret: Option<RawSecret>,
    /// Scheme and host under which browsers reach this site, such as `https://shop.example.com`.
    pub(in crate::config) site: Option<String>,
    /// Path to which the provider sends browsers back (default /.portcullis/callback).
    pub(in crate::config) callback: Option<String>,
    /// Path that ends a session (default /.portcullis/logout).
    pub(in crate::config) logout: Option<String>,
    /// Where the provider sends browsers after a logout; it has to know this address.
    pub(in crate::config) after_logout: Option<String>,
    /// What is asked for (default openid profile).
    pub(in crate::config) scopes: Vec<String>,
    /// How long a session lasts (default 8h).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) session: Option<String>,
    /// File with the key that seals sessions, 64 hexadecimal digits (openssl rand -hex 32). Without one sessions end with
    /// the process, and are good at one gateway only.
    pub(in crate::config) key: Option<String>,
    /// Claim that names the caller's groups (default groups); dots lead into objects.
    pub(in crate::config) groups_claim: Option<String>,
}

/// How many logins may fail, at the gateway's own authentication and at routes with `login`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawGuessing {
    /// The time in which as many failures are forgotten as there may be (default 10m).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) window: Option<String>,
    /// Failures of one address (default 10).
    pub(in crate::config) per_address: Option<u64>,
    /// Failures at one account, from addresses that never logged in to it (default 50).
    pub(in crate::config) per_account: Option<u64>,
    /// Failures of one address at one account (default 5).
    pub(in crate::config) per_pair: Option<u64>,
    /// Failures with one password, at whatever accounts (default 100).
    pub(in crate::config) per_password: Option<u64>,
}

/// A route at whose upstream people log in by a form or JSON.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawLogin {
    /// Field that names the account.
    pub(in crate::config) account: Option<String>,
    /// Field that holds the password, to notice one that is tried at many accounts.
    pub(in crate::config) password: Option<String>,
    /// How a failure is recognised.
    pub(in crate::config) failure: RawFailure,
}

/// How a failed login is recognised.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawFailure {
    /// By one of these statuses (default 400, 401, 403, 422, unless `body` is given).
    pub(in crate::config) statuses: Vec<u64>,
    /// By what the body says: a regular expression.
    pub(in crate::config) body: Option<String>,
}

/// One key: exactly one of `pem`, `jwk`, `secret`, `secret_file`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawKey {
    /// File with a public key in PEM.
    pub(in crate::config) pem: Option<String>,
    /// File with a key in JSON (RFC 7517).
    pub(in crate::config) jwk: Option<String>,
    /// Secret shared with the issuer; write "${NAME}" and keep it in the environment.
    pub(in crate::config) secret: Option<RawSecret>,
    /// File with a secret shared with the issuer; a line end at its end does not count.
    pub(in crate::config) secret_file: Option<String>,
    /// Its name, where tokens name their key.
    pub(in crate::config) kid: Option<String>,
}

/// A known caller: a person, a partner, a program.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawConsumer {
    /// Its name, in logs, in blocks, and upstream in X-Consumer-Username.
    pub(in crate::config) name: Option<String>,
    /// Groups it belongs to.
    pub(in crate::config) groups: Vec<String>,
    /// Hashes of its API keys, as `gateway hash key` prints them.
    pub(in crate::config) api_keys: Vec<RawSecret>,
    /// Hash of its password, as `gateway hash password` prints it; the user name is the consumer's name.
    pub(in crate::config) password: Option<RawSecret>,
    /// Secrets with which it signs requests.
    pub(in crate::config) signing_keys: Vec<RawSigningKey>,
    /// Names in its client certificates.
    pub(in crate::config) certificates: Vec<String>,
    /// By method name: the subjects of its tokens that stand for this consumer.
    pub(in crate::config) subjects: BTreeMap<String, Vec<String>>,
}

/// A secret with which a consumer signs requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSigningKey {
    /// Its name: what `keyid` says.
    pub(in crate::config) id: Option<String>,
    /// The secret, at least 32 bytes; write "${NAME}" and keep it in the environment.
    pub(in crate::config) secret: Option<RawSecret>,
}

/// What a route demands of who calls it. Without `any_of` and `all_of` every method is accepted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRequirement {
    /// Methods of which one suffices.
    pub(in crate::config) any_of: Vec<String>,
    /// Methods that are all needed.
    pub(in crate::config) all_of: Vec<String>,
    /// Whether a request without any credentials passes, as nobody (default off). Wrong credentials never pass.
    pub(in crate::config) anonymous: Option<RawToggle>,
    /// Consumers of which it must be one.
    pub(in crate::config) consumers: Vec<String>,
    /// Groups of which it must belong to one.
    pub(in crate::config) groups: Vec<String>,
    /// Scopes that its token must all have.
    pub(in crate::config) scopes: Vec<String>,
    /// Claims that its token must have: by name, the values of which one is needed.
    pub(in crate::config) claims: BTreeMap<String, Vec<String>>,
    /// An expression in CEL that must be true: over consumer, groups, scopes, claims, request (method, path, query,
    /// headers), address, country and asn. Where it comes to no answer the request is refused.
    pub(in crate::config) policy: Option<String>,
}

/// Text that is not shown, and overwritten when it is no longer needed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub(in crate::config) struct RawSecret(pub(in crate::config) String);

impl fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Drop for RawSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
