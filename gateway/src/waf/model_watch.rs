//! Watches for a new model: fetch, verify, warm, try beside the one in force, swap; on any doubt the model in force
//! stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use waf_model::{artifact, model::Model};

use crate::{
    audit::{Audit, Entry},
    clock,
    config::ConfigSlot,
    store::{
        ModelSource, StoreError,
        model_directory::{read_artifact, unhex, write_whole},
    },
    telemetry::store_metrics::StoreMetrics,
    waf::model_slot::ModelSlot,
};

/// The file that remembers which models were in force, one number a line, the latest last.
const FLOOR: &str = "models/floor";

/// Most models that it remembers.
const HISTORY: usize = 16;

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);

/// Where models come from.
pub enum Origin {
    /// The published model of the store.
    Published(Arc<dyn ModelSource>),
    /// One file, read again when it changes. It is the operator's own choice, so an older one is taken too.
    File(PathBuf),
}

/// Keeps the model slot filled with the best model that can be trusted.
pub struct ModelWatch {
    /// Where models come from.
    pub origin: Origin,
    /// What requests read.
    pub slot: Arc<ModelSlot>,
    /// Which keys are trusted, and how a newly published model is tried.
    pub config: Arc<ConfigSlot>,
    /// State directory: `keys/trainer.pub` is trusted, and `models/floor` remembers the models in force.
    pub state: PathBuf,
    /// Where a copy of the model in force is kept: for a start without the store, and so that a challenger has a
    /// champion after a restart; none for a fixed file.
    pub copy: Option<PathBuf>,
    /// Where swaps and refusals are counted.
    pub metrics: Arc<StoreMetrics>,
    /// Where they are noted.
    pub audit: Audit,
}

/// What was tried last, so that the same artifact is neither loaded nor complained about twice.
#[derive(Debug, Default)]
struct Tried {
    what: Option<Candidate>,
    /// The trusted keys at that try: a refused artifact is tried again when they change.
    keys: Vec<[u8; 32]>,
    /// The artifact of the model on trial.
    challenger: Arc<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Candidate {
    Published { seq: u64, chosen: Option<u64> },
    File { modified: SystemTime, bytes: u64 },
}

impl Candidate {
    /// What it is called before it can be read.
    fn name(&self) -> String {
        match self {
            Self::Published { seq, .. } => seq.to_string(),
            Self::File { .. } => "file".to_owned(),
        }
    }

    /// A person's choice is not tried first, and may be older.
    fn is_a_persons_choice(&self) -> bool {
        match self {
            Self::Published { seq, chosen } => *chosen == Some(*seq),
            Self::File { .. } => true,
        }
    }
}

impl ModelWatch {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut tried = Tried::default();
        self.load_copy().await;
        if self.slot.snapshot().is_none() {
            self.load_fleet_champion().await;
        }
        loop {
            self.settle(&tried).await;
            self.look(&mut tried).await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes one look; swaps if there is something better.
    async fn look(&self, tried: &mut Tried) {
        let candidate = match self.candidate().await {
            Ok(Some(candidate)) => candidate,
            Ok(None) => return self.metrics.store_works("models"),
            Err(error) => return self.metrics.store_failed("models", &error),
        };
        // One trial at a time: a trainer that publishes often must not keep any model from being judged.
        if self.slot.challenger().is_some() && !candidate.is_a_persons_choice() {
            return self.metrics.store_works("models");
        }
        let keys = self.trusted();
        if tried.what.as_ref() == Some(&candidate) && tried.keys == keys {
            return self.metrics.store_works("models");
        }
        let bytes = match self.fetch(&candidate).await {
            Ok(bytes) => bytes,
            // Not remembered as tried: the artifact may be there at the next look.
            Err(error) => return self.metrics.store_failed("models", &error),
        };
        self.metrics.store_works("models");
        let started = Instant::now();
        let bytes = Arc::new(bytes);
        let loaded = verified(Arc::clone(&bytes), keys.clone()).await.and_then(|model| {
            let in_force = self.slot.seq();
            check_sequence(&candidate, model.seq(), in_force.max(self.floor()))?;
            Ok(model)
        });
        match loaded {
            Ok(model) => {
                tracing::info!(model = model.seq(), took = ?started.elapsed(), "model verified");
                self.admit(model, &candidate, &bytes).await;
            }
            Err(reason) => {
                self.metrics.refuse_model();
                let in_force = self.slot.seq();
                tracing::error!(?candidate, in_force, %reason, "model refused; the one in force stays");
                self.note_refusal(&candidate.name(), &reason);
            }
        }
        *tried = Tried { what: Some(candidate), keys, challenger: bytes };
    }

    /// Puts a verified model in force, or on trial if there is a champion to compare it with.
    async fn admit(&self, model: Model, candidate: &Candidate, bytes: &Arc<Vec<u8>>) {
        let champion = self.slot.snapshot().map(|in_force| Arc::clone(&in_force.model));
        let Some(champion) = champion else { return self.put_in_force(Arc::new(model), bytes).await };
        if *champion == model {
            // The copy of the last run, or a person who wants to keep what is in force.
            return self.slot.dismiss();
        }
        let comparable = champion.seq() != model.seq() && champion.value_key() == model.value_key();
        let terms = self.config.snapshot().waf.challenger;
        if terms.requests == 0 || !comparable || candidate.is_a_persons_choice() {
            return self.put_in_force(Arc::new(model), bytes).await;
        }
        tracing::info!(
            challenger = model.seq(),
            champion = champion.seq(),
            requests = terms.requests,
            "model on trial; `gateway models promote` puts it in force at once"
        );
        self.note("model.trial", &model.seq().to_string(), json!({ "against": champion.seq() }));
        self.slot.challenge(Arc::new(model), terms);
    }

    /// Ends the trial of the challenger once it can be judged.
    async fn settle(&self, tried: &Tried) {
        let Some(challenger) = self.slot.challenger() else { return };
        match challenger.judge(clock::now_ms()) {
            None => {}
            Some(Ok(trial)) => {
                tracing::info!(?trial, "challenger passed its trial");
                self.put_in_force(Arc::clone(&challenger.model), &tried.challenger).await;
            }
            Some(Err(reason)) => {
                let (seq, in_force) = (challenger.model.seq(), self.slot.seq());
                self.metrics.refuse_model();
                tracing::error!(
                    model = seq,
                    in_force,
                    reason,
                    "challenger refused; the champion stays in force"
                );
                self.note_refusal(&seq.to_string(), &reason);
                self.slot.refuse(seq, reason);
            }
        }
    }

    async fn put_in_force(&self, model: Arc<Model>, bytes: &Arc<Vec<u8>>) {
        let seq = model.seq();
        if let Origin::Published(_) = self.origin {
            self.remember(seq, Arc::clone(bytes)).await;
        }
        self.swap(model);
        tracing::info!(model = seq, "model in force");
        if let Origin::Published(source) = &self.origin
            && let Err(error) = source.set_in_force(seq).await
        {
            self.metrics.store_failed("models", &error);
        }
    }

    fn swap(&self, model: Arc<Model>) {
        let (before, seq) = (self.slot.seq(), model.seq());
        self.slot.swap(model);
        self.metrics.set_model(seq);
        let before = if before == 0 { Value::Null } else { Value::from(before) };
        self.audit.record(Entry::by_gateway("model.in_force", seq.to_string(), before, Value::from(seq)));
    }

    fn note_refusal(&self, model: &str, reason: &str) {
        self.note("model.refused", model, json!({ "reason": reason, "in_force": self.slot.seq() }));
    }

    fn note(&self, action: &'static str, model: &str, what: Value) {
        self.audit.record(Entry::by_gateway(action, model, Value::Null, what));
    }

    async fn candidate(&self) -> Result<Option<Candidate>, StoreError> {
        match &self.origin {
            Origin::Published(source) => {
                let Some(seq) = source.current().await? else { return Ok(None) };
                Ok(Some(Candidate::Published { seq, chosen: source.chosen().await? }))
            }
            Origin::File(path) => match tokio::fs::metadata(path).await {
                Ok(metadata) => {
                    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    Ok(Some(Candidate::File { modified, bytes: metadata.len() }))
                }
                Err(error) => Err(StoreError::Away(format!("{}: {error}", path.display()))),
            },
        }
    }

    async fn fetch(&self, candidate: &Candidate) -> Result<Vec<u8>, StoreError> {
        match (&self.origin, candidate) {
            (Origin::Published(source), Candidate::Published { seq, .. }) => source.fetch(*seq).await,
            (Origin::Published(_), Candidate::File { .. }) => {
                Err(StoreError::Away("a file is not published".to_owned()))
            }
            (Origin::File(path), _) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read_artifact(&path))
                    .await
                    .unwrap_or_else(|error| Err(StoreError::Away(error.to_string())))
            }
        }
    }

    fn floor(&self) -> u64 {
        history(&self.state).last().copied().unwrap_or(0)
    }

    /// Notes what is in force for the next start.
    async fn remember(&self, seq: u64, bytes: Arc<Vec<u8>>) {
        let mut files = Vec::new();
        let known = history(&self.state);
        let history = continued(known.clone(), seq);
        if history != known {
            let lines: String = history.iter().map(|seq| format!("{seq}\n")).collect();
            files.push((self.state.join(FLOOR), Arc::new(lines.into_bytes())));
        }
        files.extend(self.copy.clone().map(|path| (path, bytes)));
        let written = tokio::task::spawn_blocking(move || {
            files.iter().try_for_each(|(path, content)| write_whole(path, content, 0o644))
        });
        if let Err(error) = written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(%error, "cannot remember the model in force for the next start");
        }
    }

    /// Puts the model of the last run in force: the store is away, or lost its memory.
    async fn load_copy(&self) {
        let Some(path) = self.copy.clone().filter(|path| path.exists()) else { return };
        let read = tokio::task::spawn_blocking(move || read_artifact(&path)).await;
        let loaded = match read.unwrap_or_else(|error| Err(StoreError::Away(error.to_string()))) {
            Ok(bytes) => verified(Arc::new(bytes), self.trusted()).await,
            Err(error) => Err(error.to_string()),
        };
        match loaded {
            Ok(model) if model.seq() >= self.floor() => {
                tracing::info!(
                    model = model.seq(),
                    "model of the last run in force, until the store says otherwise"
                );
                self.swap(Arc::new(model));
            }
            Ok(model) => tracing::warn!(model = model.seq(), "copy of an older model not used"),
            Err(reason) => tracing::warn!(reason, "copy of the last model not used"),
        }
    }

    /// A gateway without a champion of its own takes that of the others: what is published last may be on trial
    /// there, or refused. Without any the published model is put in force.
    async fn load_fleet_champion(&self) {
        let Origin::Published(source) = &self.origin else { return };
        let Ok(Some(seq)) = source.in_force().await else { return };
        let loaded = match source.fetch(seq).await {
            Ok(bytes) => verified(Arc::new(bytes), self.trusted()).await,
            Err(error) => Err(error.to_string()),
        };
        match loaded {
            Ok(model) if model.seq() == seq && seq >= self.floor() => {
                tracing::info!(model = seq, "model of the other gateways in force");
                self.swap(Arc::new(model));
            }
            Ok(model) => tracing::warn!(model = model.seq(), seq, "model of the other gateways not used"),
            Err(reason) => tracing::warn!(reason, "model of the other gateways not used"),
        }
    }

    fn trusted(&self) -> Vec<[u8; 32]> {
        let mut keys = self.config.snapshot().waf.model_keys.clone();
        let path = self.state.join("keys").join("trainer.pub");
        match trainer_key(&path) {
            Ok(key) => keys.extend(key),
            Err(error) => tracing::debug!(path = %path.display(), error, "trainer key not read"),
        }
        keys
    }
}

/// The models that were in force here, oldest first, as far as they are remembered: going back to one of them
/// forgets those after it.
pub fn history(state: &Path) -> Vec<u64> {
    let text = fs::read_to_string(state.join(FLOOR)).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn continued(mut history: Vec<u64>, seq: u64) -> Vec<u64> {
    match history.iter().position(|known| *known == seq) {
        Some(at) => history.truncate(at + 1),
        None => history.push(seq),
    }
    history.split_off(history.len().saturating_sub(HISTORY))
}

/// Refuses an older model than `newest`, the one in force now or before the last restart, unless a person chose it.
fn check_sequence(candidate: &Candidate, found: u64, newest: u64) -> Result<(), String> {
    let Candidate::Published { seq, chosen } = candidate else { return Ok(()) };
    if found != *seq {
        return Err(format!("published as {seq}, but the artifact says {found}"));
    }
    if found < newest && *chosen != Some(found) {
        return Err(format!(
            "older than model {newest}, which was in force; to go back use `gateway models rollback {found}`"
        ));
    }
    Ok(())
}

/// Reads the trainer's public key; `None` if there is no file yet.
fn trainer_key(path: &Path) -> Result<Option<[u8; 32]>, String> {
    match fs::read_to_string(path) {
        Ok(text) => unhex(text.trim()).map(Some).ok_or_else(|| "not 64 hexadecimal digits".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs [`verify`] off the request threads.
async fn verified(bytes: Arc<Vec<u8>>, keys: Vec<[u8; 32]>) -> Result<Model, String> {
    let decoded = tokio::task::spawn_blocking(move || verify(&bytes, &keys)).await;
    decoded.unwrap_or_else(|error| Err(error.to_string()))
}

/// Decodes an artifact with the keys in force; decoding also runs its golden pairs, which warms the model.
fn verify(bytes: &[u8], keys: &[[u8; 32]]) -> Result<Model, String> {
    let trusted = artifact::trusted_keys(keys);
    if trusted.is_empty() {
        return Err(
            "no trusted key: set waf.model_keys, or let the trainer write keys/trainer.pub".to_owned()
        );
    }
    artifact::decode(bytes, &trusted).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::model_directory::{ModelDirectory, hex};

    fn published(seq: u64, chosen: Option<u64>) -> Candidate {
        Candidate::Published { seq, chosen }
    }

    #[test]
    fn an_older_model_needs_a_person() {
        assert!(check_sequence(&published(3, None), 3, 0).is_ok());
        assert!(check_sequence(&published(4, None), 4, 3).is_ok());
        assert!(check_sequence(&published(3, None), 3, 4).unwrap_err().contains("rollback 3"));
        assert!(check_sequence(&published(3, Some(3)), 3, 4).is_ok());
        assert!(check_sequence(&published(2, Some(3)), 2, 4).is_err());
        assert!(check_sequence(&published(5, None), 4, 3).is_err());
        let file = Candidate::File { modified: SystemTime::UNIX_EPOCH, bytes: 1 };
        assert!(check_sequence(&file, 1, 9).is_ok());
    }

    #[test]
    fn going_back_forgets_what_came_after() {
        let mut history = Vec::new();
        for seq in [1, 3, 5, 5, 3, 7] {
            history = continued(history, seq);
        }
        assert_eq!(history, [1, 3, 7]);
        for seq in 8..40 {
            history = continued(history, seq);
        }
        assert_eq!((history.len(), history.last()), (HISTORY, Some(&39)));
    }

    #[tokio::test]
    async fn rubbish_is_refused_once_until_the_keys_change() {
        let state = tempfile::tempdir().unwrap();
        let directory = ModelDirectory::open(state.path()).unwrap();
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let watch = ModelWatch {
            origin: Origin::Published(Arc::new(directory)),
            slot: Arc::default(),
            config: Arc::new(ConfigSlot::new(Arc::new(config))),
            state: state.path().to_owned(),
            copy: None,
            metrics: Arc::default(),
            audit: Audit::nowhere(),
        };
        let mut tried = Tried::default();
        watch.look(&mut tried).await;
        assert_eq!(watch.metrics.models_refused(), 0);
        fs::write(state.path().join("models/1.model"), b"rubbish").unwrap();
        fs::write(state.path().join("models/current"), b"1\n").unwrap();
        for _ in 0..3 {
            watch.look(&mut tried).await;
        }
        assert_eq!(watch.metrics.models_refused(), 1);
        let key = [1; 32];
        fs::write(state.path().join("keys/trainer.pub"), hex(&key)).unwrap();
        watch.look(&mut tried).await;
        assert_eq!(watch.metrics.models_refused(), 2);
        assert!(watch.slot.snapshot().is_none());
        fs::write(state.path().join("models/current"), b"one").unwrap();
        watch.look(&mut tried).await;
        assert_eq!(watch.metrics.failing_parts(), ["models"]);
    }
}
