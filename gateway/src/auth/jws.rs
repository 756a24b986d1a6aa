//! Signatures of tokens (RFC 7515, 7518, 8037): an algorithm is only ever used with a key of its own kind.

use aws_lc_rs::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{self, ParsedPublicKey, RsaParameters, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Longest name of a key that is looked for, in bytes.
const LONGEST_KID: usize = 256;

/// Fewest bits of an RSA key: RFC 7518, 3.3.
const LEAST_RSA_BYTES: usize = 2048 / 8;

/// How a token is signed. `none` is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

/// Every algorithm with its name.
const NAMES: [(&str, Algorithm); 13] = [
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("ES512", Algorithm::Es512),
    ("EdDSA", Algorithm::EdDsa),
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
];

/// The kind of key that an algorithm needs.
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    /// The curve by its name in a JWK.
    Ec(&'static str, &'static dyn VerificationAlgorithm),
    Ed,
}

impl Algorithm {
    /// The algorithm of this name, as tokens write it.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Every algorithm by which only the issuer can sign.
    pub fn asymmetric() -> Vec<Self> {
        NAMES.iter().map(|(_, algorithm)| *algorithm).filter(|algorithm| !algorithm.is_shared()).collect()
    }

    /// Whether whoever can check a signature can make one.
    pub fn is_shared(self) -> bool {
        matches!(self.family(), Family::Hmac(_))
    }

    /// Fewest bytes of a shared secret: those of the hash (RFC 7518, 3.2).
    pub fn least_secret(self) -> usize {
        match self.family() {
            Family::Hmac(algorithm) => algorithm.digest_algorithm().output_len(),
            _ => 0,
        }
    }

    fn family(self) -> Family {
        match self {
            Self::Hs256 => Family::Hmac(hmac::HMAC_SHA256),
            Self::Hs384 => Family::Hmac(hmac::HMAC_SHA384),
            Self::Hs512 => Family::Hmac(hmac::HMAC_SHA512),
            Self::Rs256 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Family::Ec("P-256", &signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Family::Ec("P-384", &signature::ECDSA_P384_SHA384_FIXED),
            Self::Es512 => Family::Ec("P-521", &signature::ECDSA_P521_SHA512_FIXED),
            Self::EdDsa => Family::Ed,
        }
    }
}

/// A key as JSON says it (RFC 7517); private parts are not read.
#[derive(Deserialize)]
pub struct RawJwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<Zeroizing<String>>,
}

/// A key, ready for each algorithm that it may be used with.
#[derive(Clone)]
pub struct Key {
    kid: Option<String>,
    uses: Vec<(Algorithm, Verifier)>,
}

#[derive(Clone)]
enum Verifier {
    Shared(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithms: Vec<Algorithm> = self.uses.iter().map(|(algorithm, _)| *algorithm).collect();
        f.debug_struct("Key").field("kid", &self.kid).field("uses", &algorithms).finish()
    }
}

impl Key {
    /// A secret shared with the issuer, for those of `allowed` that are made for one.
    ///
    /// # Errors
    /// It is too short for one of them, or none of them is.
    pub fn secret(secret: &[u8], kid: Option<String>, allowed: &[Algorithm]) -> Result<Self, String> {
        let mut uses = Vec::new();
        for algorithm in allowed {
            let Family::Hmac(hash) = algorithm.family() else { continue };
            if secret.len() < algorithm.least_secret() {
                let least = algorithm.least_secret();
                return Err(format!(
                    "is shorter than {least} bytes and can be guessed; `openssl rand -hex 32` makes one"
                ));
            }
            uses.push((*algorithm, Verifier::Shared(Box::new(hmac::Key::new(hash, secret)))));
        }
        Self::usable(kid, uses)
    }

    /// A public key in PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// It is no such key, or none of `allowed` is made for its kind.
    pub fn pem(pem: &[u8], kid: Option<String>, allowed: &[Algorithm]) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| "holds no public key in PEM (\"BEGIN PUBLIC KEY\")".to_owned())?;
        let parsed = allowed.iter().filter_map(|algorithm| {
            let kind: &'static dyn VerificationAlgorithm = match algorithm.family() {
                Family::Hmac(_) => return None,
                Family::Rsa(parameters) => parameters,
                Family::Ec(_, curve) => curve,
                Family::Ed => &signature::ED25519,
            };
            Some((*algorithm, Verifier::Public(ParsedPublicKey::new(kind, &der).ok()?)))
        });
        Self::usable(kid, parsed.collect())
    }

    /// A key in JSON. `None` for keys that are not meant for signatures, or of no kind that `allowed` is made for.
    pub fn jwk(raw: &RawJwk, allowed: &[Algorithm]) -> Option<Self> {
        let says_verify = raw.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if raw.usage.as_deref().is_some_and(|usage| usage != "sig") || !says_verify {
            return None;
        }
        let fits = |name: &Option<String>, algorithm: Algorithm| {
            name.as_deref().is_none_or(|name| Algorithm::named(name) == Some(algorithm))
        };
        let uses = allowed.iter().filter(|algorithm| fits(&raw.alg, **algorithm));
        let uses = uses.filter_map(|algorithm| Some((*algorithm, raw.verifier(*algorithm)?)));
        Self::usable(raw.kid.clone(), uses.collect()).ok()
    }

    fn usable(kid: Option<String>, uses: Vec<(Algorithm, Verifier)>) -> Result<Self, String> {
        if uses.is_empty() {
            return Err("fits none of the algorithms".to_owned());
        }
        Ok(Self { kid, uses })
    }

    /// Whether it can be meant by a token that names its key so.
    pub fn may_be(&self, kid: Option<&str>) -> bool {
        self.kid.is_none() || kid.is_none() || self.kid.as_deref() == kid
    }

    /// Whether it works with this algorithm.
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        self.uses.iter().any(|(one, _)| *one == algorithm)
    }

    /// Whether the token was signed with it.
    pub fn verifies(&self, token: &Signed<'_>) -> bool {
        let found = self.uses.iter().find(|(algorithm, _)| *algorithm == token.algorithm);
        found.is_some_and(|(_, verifier)| match verifier {
            Verifier::Shared(key) => hmac::verify(key, token.message, &token.signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(token.message, &token.signature).is_ok(),
        })
    }
}

impl RawJwk {
    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        match (algorithm.family(), self.kty.as_str()) {
            (Family::Hmac(hash), "oct") => {
                let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(self.k.as_ref()?.as_bytes()).ok()?);
                let is_long = secret.len() >= algorithm.least_secret();
                is_long.then(|| Verifier::Shared(Box::new(hmac::Key::new(hash, &secret))))
            }
            (Family::Rsa(parameters), "RSA") => {
                let (n, e) = (bytes(&self.n)?, bytes(&self.e)?);
                let is_long = n.iter().skip_while(|byte| **byte == 0).count() >= LEAST_RSA_BYTES;
                let key = PublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()?;
                is_long.then_some(Verifier::Public(key))
            }
            (Family::Ec(curve, parameters), "EC") if self.crv.as_deref() == Some(curve) => {
                // An uncompressed point (SEC 1, 2.3.3); coordinates have the full length (RFC 7518, 6.2.1.2).
                let point = [vec![4], bytes(&self.x)?, bytes(&self.y)?].concat();
                Some(Verifier::Public(ParsedPublicKey::new(parameters, point).ok()?))
            }
            (Family::Ed, "OKP") if self.crv.as_deref() == Some("Ed25519") => {
                Some(Verifier::Public(ParsedPublicKey::new(&signature::ED25519, bytes(&self.x)?).ok()?))
            }
            _ => None,
        }
    }
}

/// A token taken apart, its signature not checked yet.
#[derive(Debug)]
pub struct Signed<'a> {
    /// How it says it is signed.
    pub algorithm: Algorithm,
    /// Which key it says that was.
    pub kid: Option<String>,
    /// What it says, encoded.
    payload: &'a str,
    message: &'a [u8],
    signature: Vec<u8>,
}

/// The header of a token. What else stands in it (`jku`, `x5u`, `jwk`) would let whoever made the token choose the key.
#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

impl<'a> Signed<'a> {
    /// Takes a compact token apart; `None` if it is none, or signed in a way that is unknown or `none`.
    pub fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header: RawHeader = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        // Whoever does not understand an extension that is called critical has to refuse (RFC 7515, 4.1.11).
        if header.crit.is_some() || header.kid.as_ref().is_some_and(|kid| kid.len() > LONGEST_KID) {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::named(&header.alg)?,
            kid: header.kid,
            payload,
            message: message.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// What it says; to be believed only once the signature is known to be good.
    pub fn payload(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.payload).ok()
    }
}

#[cfg(test)]
mod tests;
