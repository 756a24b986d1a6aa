//! Bytes to model and back: magic, version, schema id, checksum, signature, golden pairs.
//!
//! Layout: `PCLSMODL` | format u16 LE | header length u32 LE | payload length u64 LE | header (JSON) | payload
//! (postcard of `RawPayload`) | Ed25519 signature (64 bytes) over everything before it. The header is for people
//! and tools and repeats nothing that scoring needs; the payload's blake3 is in it. No library's own structure is
//! ever stored.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{
    client::ClientVector,
    features,
    model::{Model, RawModel, RawProvenance},
    observation::Observation,
};

/// First bytes of every artifact.
pub const MAGIC: &[u8; 8] = b"PCLSMODL";

/// The format that this build writes and reads.
pub const FORMAT: u16 = 3;

/// Largest artifact that is read, in bytes.
pub const MAX_BYTES: usize = 256 << 20;

const PREFIX_BYTES: usize = 8 + 2 + 4 + 8;
const SIGNATURE_BYTES: usize = 64;

/// Why an artifact was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArtifactError {
    /// Not an artifact, or shorter than its header says.
    #[error("not a Portcullis model, or truncated: {0}")]
    Malformed(String),
    /// A format this version cannot read.
    #[error("artifact format {found}, this build reads format {FORMAT}; use a matching trainer")]
    Format {
        /// What the file says.
        found: u16,
    },
    /// Learned with other features.
    #[error("feature schema {found}, this build has {expected}; train again with a matching trainer")]
    Schema {
        /// What the file says.
        found: String,
        /// What this build has.
        expected: String,
    },
    /// The bytes are not those that were written.
    #[error("checksum does not match: the file is damaged")]
    Checksum,
    /// The signer is not trusted.
    #[error("signed with key {0}, which is not trusted; add it to waf.model_keys if it is your trainer's")]
    Untrusted(String),
    /// The signature does not fit the bytes.
    #[error("signature does not match the content")]
    Signature,
    /// A number is not finite, a shape does not fit, or a limit is exceeded.
    #[error("the model's content is not valid: {0}")]
    Invalid(String),
    /// The model does not reproduce the scores that the trainer recorded.
    #[error("golden pair {index}: distance {found}, recorded {expected}")]
    Golden {
        /// Which pair.
        index: usize,
        /// Distance computed here.
        found: f32,
        /// Distance recorded by the trainer.
        expected: f32,
    },
}

/// What stands in the header; readable without trusting or parsing the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawHeader {
    /// [`features::schema_id`] of the trainer.
    pub schema: String,
    /// Sequence number.
    pub seq: u64,
    /// blake3 of the payload, hexadecimal.
    pub payload: String,
    /// Public key of the signer, hexadecimal.
    pub signer: String,
    /// Where the model comes from.
    pub provenance: RawProvenance,
}

#[derive(Serialize, Deserialize)]
struct RawPayload {
    model: RawModel,
    golden: Vec<RawGolden>,
}

/// An input and the distances that the trainer's build computed for it; a build that computes others must not
/// use the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawGolden {
    /// The request.
    pub observation: Observation,
    /// Its client.
    pub client: ClientVector,
    /// Distance of the request.
    pub request_distance: f32,
    /// Distance of the client.
    pub client_distance: f32,
}

impl RawGolden {
    /// Records what `model` computes.
    pub fn record(model: &Model, observation: Observation, client: ClientVector) -> Self {
        let score = model.score(&observation, &client);
        Self {
            observation,
            client,
            request_distance: score.request_distance,
            client_distance: score.client_distance,
        }
    }
}

/// Reads, verifies and self-tests an artifact: limits, signature by one of `trusted`, checksum, schema, content,
/// golden pairs.
///
/// # Errors
/// The first reason to refuse it; nothing is loaded then.
pub fn decode(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<Model, ArtifactError> {
    let parts = Parts::split(bytes)?;
    let header = parts.header()?;
    let signer = trusted
        .iter()
        .find(|key| hex(key.as_bytes()) == header.signer)
        .ok_or_else(|| ArtifactError::Untrusted(header.signer.clone()))?;
    signer.verify_strict(parts.signed, &parts.signature).map_err(|_| ArtifactError::Signature)?;
    if hex(blake3::hash(parts.payload).as_bytes()) != header.payload {
        return Err(ArtifactError::Checksum);
    }
    let expected = features::schema_id();
    if header.schema != expected {
        return Err(ArtifactError::Schema { found: header.schema, expected });
    }
    let payload: RawPayload =
        postcard::from_bytes(parts.payload).map_err(|error| ArtifactError::Malformed(error.to_string()))?;
    let model = Model::try_from(payload.model).map_err(|error| ArtifactError::Invalid(error.to_string()))?;
    if model.seq() != header.seq {
        return Err(ArtifactError::Invalid("header and payload disagree on the sequence number".to_owned()));
    }
    if payload.golden.is_empty() {
        return Err(ArtifactError::Invalid("no golden pairs".to_owned()));
    }
    for (index, golden) in payload.golden.iter().enumerate() {
        let score = model.score(&golden.observation, &golden.client);
        for (found, expected) in [
            (score.request_distance, golden.request_distance),
            (score.client_distance, golden.client_distance),
        ] {
            // Equal bits on equal builds; the tolerance is for another mathematics library.
            let close = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
            if !close {
                return Err(ArtifactError::Golden { index, found, expected });
            }
        }
    }
    Ok(model)
}

/// The public keys among `keys`; bytes that are not a point of the curve are left out.
pub fn trusted_keys(keys: &[[u8; 32]]) -> Vec<VerifyingKey> {
    keys.iter().filter_map(|key| VerifyingKey::from_bytes(key).ok()).collect()
}

/// Reads the header without verifying anything: for listing artifacts, never for using them.
///
/// # Errors
/// Bytes that are not an artifact of this format.
pub fn header(bytes: &[u8]) -> Result<RawHeader, ArtifactError> {
    Parts::split(bytes)?.header()
}

/// Serializes and signs a model with its golden pairs.
///
/// # Errors
/// Nothing that a checked model can cause; kept for the serializer's sake.
pub fn encode(model: &Model, golden: &[RawGolden], key: &SigningKey) -> Result<Vec<u8>, ArtifactError> {
    let serialized = |error: String| ArtifactError::Invalid(error);
    let payload = RawPayload { model: model.into(), golden: golden.to_vec() };
    let payload = postcard::to_stdvec(&payload).map_err(|error| serialized(error.to_string()))?;
    let header = RawHeader {
        schema: features::schema_id(),
        seq: model.seq(),
        payload: hex(blake3::hash(&payload).as_bytes()),
        signer: hex(key.verifying_key().as_bytes()),
        provenance: model.provenance().clone(),
    };
    let header = serde_json::to_vec(&header).map_err(|error| serialized(error.to_string()))?;
    let header_length = u32::try_from(header.len()).map_err(|error| serialized(error.to_string()))?;
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + payload.len() + SIGNATURE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&header_length.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&payload);
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature.to_bytes());
    Ok(bytes)
}

/// The pieces of an artifact, their lengths checked.
struct Parts<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    signed: &'a [u8],
    signature: Signature,
}

impl<'a> Parts<'a> {
    fn split(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        let malformed = |what: &str| ArtifactError::Malformed(what.to_owned());
        if bytes.len() > MAX_BYTES {
            return Err(malformed("larger than any model"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("wrong first bytes"))?;
        let (format, rest) = rest.split_first_chunk::<2>().ok_or_else(|| malformed("ends in the prefix"))?;
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(ArtifactError::Format { found: format });
        }
        let (header_length, rest) =
            rest.split_first_chunk::<4>().ok_or_else(|| malformed("ends in the prefix"))?;
        let (payload_length, rest) =
            rest.split_first_chunk::<8>().ok_or_else(|| malformed("ends in the prefix"))?;
        let header_length = u32::from_le_bytes(*header_length) as usize;
        let payload_length = usize::try_from(u64::from_le_bytes(*payload_length)).unwrap_or(usize::MAX);
        let (header, rest) =
            rest.split_at_checked(header_length).ok_or_else(|| malformed("ends in the header"))?;
        let (payload, rest) =
            rest.split_at_checked(payload_length).ok_or_else(|| malformed("ends in the payload"))?;
        let signature: &[u8; SIGNATURE_BYTES] =
            rest.try_into().map_err(|_| malformed("does not end with its signature"))?;
        let signed = bytes.get(..bytes.len() - SIGNATURE_BYTES).unwrap_or_default();
        Ok(Self { header, payload, signed, signature: Signature::from_bytes(signature) })
    }

    fn header(&self) -> Result<RawHeader, ArtifactError> {
        serde_json::from_slice(self.header)
            .map_err(|error| ArtifactError::Malformed(format!("header: {error}")))
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
