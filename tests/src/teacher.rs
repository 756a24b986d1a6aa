//! A stand-in for the trainer inside a test: keys, observations and signed models of one site, without a lake.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use datasets::{benign, request::GeneratedRequest};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use waf_model::{
    artifact::{self, RawGolden},
    client::ClientVector,
    features,
    model::{
        Model, RawModel, RawProvenance,
        baseline::Baseline,
        calibration::{Certificate, RawCalibration, Standing},
        clusters::RawClusters,
        groups::RawGroups,
    },
    observation::{Observation, ValueKey},
    profile::builder::ProfileBuilder,
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::{Collections, Connection, Context, Options, RuleMatches, RuleSet, RuleSource},
    values::{Limits, Values},
};

/// Knows one site's keys and the built-in rules, and makes models.
#[derive(Debug)]
pub struct Teacher {
    signing: SigningKey,
    value_key: ValueKey,
    rules: RuleSet,
}

impl Teacher {
    /// A teacher whose keys follow from `seed`; with the rules that the gateway has built in.
    ///
    /// # Errors
    /// The built-in rules cannot be read or do not compile.
    pub fn new(seed: u8) -> Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/rules");
        let mut files: Vec<_> = fs::read_dir(&directory)
            .with_context(|| format!("reading {}", directory.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        files.sort();
        let texts = files.iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let sources: Vec<RuleSource<'_>> =
            names.iter().zip(&texts).map(|(name, text)| RuleSource { name, text }).collect();
        let rules = RuleSet::compile(&sources, &Options::default())
            .map_err(|errors| anyhow!("built-in rules: {errors:?}"))?;
        Ok(Self { signing: SigningKey::from_bytes(&[seed; 32]), value_key: ValueKey([seed; 16]), rules })
    }

    /// The key that verifies this teacher's models.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.signing.verifying_key()
    }

    /// Appends a valid signature, whatever the bytes are.
    pub fn sign(&self, bytes: &mut Vec<u8>) {
        let signature = self.signing.sign(bytes);
        bytes.extend_from_slice(&signature.to_bytes());
    }

    /// Puts the keys where a gateway with state directory `state` looks for them.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn install_keys(&self, state: &Path) -> Result<()> {
        let keys = state.join("keys");
        fs::create_dir_all(&keys)?;
        fs::write(keys.join("trainer.pub"), artifact::hex(self.verifying_key().as_bytes()))?;
        fs::write(keys.join("site.key"), artifact::hex(&self.value_key.0))?;
        Ok(())
    }

    /// What the gateway observes of `request` when [`crate::client::Client::send`] sent it.
    pub fn observe(&self, request: &GeneratedRequest) -> Observation {
        let (path, query) = match request.uri.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (request.uri.as_str(), None),
        };
        let (client, length) = (request.client.to_string(), request.body.len().to_string());
        let mut headers = vec![Header { name: "host", value: b"shop.example" }];
        headers.extend(request.headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }));
        headers.push(Header { name: "x-forwarded-for", value: client.as_bytes() });
        if !request.body.is_empty() {
            headers.push(Header { name: "content-length", value: length.as_bytes() });
        }
        let view = RequestView {
            method: request.method,
            path: path.as_bytes(),
            query,
            protocol: "HTTP/1.1",
            headers: &headers,
            body: BodyView { bytes: &request.body, extent: BodyExtent::Complete },
            client_address: &client,
        };
        let values = Values::extract(&view, &Limits::default());
        let collections = Collections::default();
        let context = Context {
            now_ms: 0,
            request_id: "",
            collections: &collections,
            connection: Connection::default(),
        };
        let matches: RuleMatches = self.rules.evaluate(&context, &view, &values).matches;
        Observation::of(&view, &values, &matches, &self.value_key)
    }

    /// A small model number `seq`, learned from the shop's benign clients: one cluster, certified thresholds.
    ///
    /// # Errors
    /// What was learned does not make a valid model.
    pub fn model(&self, seq: u64) -> Result<Model> {
        let observe = |first, count| -> Vec<(u64, Observation)> {
            let clients = benign::population(u64::from(first), first, count).into_iter().enumerate();
            clients
                .flat_map(|(index, client)| client.take(12).map(move |request| (index as u64, request)))
                .map(|(index, request)| (index, self.observe(&request)))
                .collect()
        };
        let (lesson, later) = (observe(0, 60), observe(1_000, 30));
        let mut builder = ProfileBuilder::default();
        for (client, observation) in &lesson {
            builder.learn(observation, *client);
        }
        let profiles = builder.finish()?;
        let vector = |observation: &Observation| features::extract(observation, &profiles).vector.0;
        let rows: Vec<[f32; features::FEATURES]> =
            lesson.iter().map(|(_, observation)| vector(observation)).collect();
        let column = |index: usize| rows.iter().filter_map(move |row| row.get(index).copied());
        let mean = |index: usize| column(index).sum::<f32>() / rows.len() as f32;
        let centers: Vec<f32> = (0..features::FEATURES).map(mean).collect();
        let scales = centers.iter().enumerate().map(|(index, center)| {
            let variance = column(index).map(|x| (x - center).powi(2)).sum::<f32>() / rows.len() as f32;
            variance.sqrt().max(0.5)
        });
        let certificate = |n, threshold| Certificate {
            budget: 0.01,
            confidence: 0.95,
            n,
            threshold,
            standing: Standing::Certified,
        };
        let mut raw = RawModel {
            seq,
            value_key: self.value_key.0,
            provenance: RawProvenance {
                trainer: "a test".to_owned(),
                requests: lesson.len() as u64,
                ..RawProvenance::default()
            },
            profiles: (&profiles).into(),
            requests: RawClusters {
                dimensions: features::FEATURES,
                usual: centers.iter().map(|center| (center - 1.0, center + 1.0)).collect(),
                scales: scales.collect(),
                centers: centers.clone(),
                mass: vec![1.0],
            },
            clients: None,
            request_calibration: RawCalibration::from_distances(vec![1.0]),
            client_calibration: None,
            request_certificate: certificate(1, f32::MAX),
            request_groups: RawGroups::default(),
            client_certificate: certificate(30, 8.0),
            baseline: (&Baseline::of(&rows)).into(),
        };
        let draft = Model::try_from(raw.clone()).map_err(|error| anyhow!(error))?;
        let distances: Vec<f32> = later
            .iter()
            .map(|(_, observation)| draft.score(observation, &ClientVector::UNKNOWN).request_distance)
            .collect();
        let farthest = distances.iter().copied().fold(0.0, f32::max);
        raw.request_certificate = certificate(distances.len() as u64, farthest * 1.2 + 0.1);
        raw.request_calibration = RawCalibration::from_distances(distances);
        Model::try_from(raw).map_err(|error| anyhow!(error))
    }

    /// The same model under another number.
    ///
    /// # Errors
    /// Number 0.
    pub fn renumbered(&self, model: &Model, seq: u64) -> Result<Model> {
        let mut raw = RawModel::from(model);
        raw.seq = seq;
        Model::try_from(raw).map_err(|error| anyhow!(error))
    }

    /// The signed artifact of a model.
    ///
    /// # Errors
    /// It cannot be serialized.
    pub fn artifact(&self, model: &Model) -> Result<Vec<u8>> {
        let golden: Vec<RawGolden> = benign::population(77, 2_000, 4)
            .into_iter()
            .flat_map(|client| client.take(2))
            .map(|request| RawGolden::record(model, self.observe(&request), ClientVector::UNKNOWN))
            .collect();
        Ok(artifact::encode(model, &golden, &self.signing)?)
    }
}

/// Publishes an artifact in the embedded store at `state` as the trainer does: the file first, then, in one
/// step, the name of the current one.
///
/// # Errors
/// It cannot be written.
pub fn publish(state: &Path, seq: u64, artifact: &[u8]) -> Result<()> {
    let models = state.join("models");
    fs::create_dir_all(&models)?;
    for (name, bytes) in
        [(format!("{seq}.model"), artifact), ("current".to_owned(), seq.to_string().as_bytes())]
    {
        let temporary = models.join(format!(".{name}.new"));
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, models.join(&name)).with_context(|| format!("publishing model {seq}"))?;
    }
    Ok(())
}
