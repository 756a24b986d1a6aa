//! A new configuration while the gateway runs: read, checked, compared, and put in force as a whole, or not at all.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Mutex,
};

use crate::{
    audit::{Actor, Entry},
    auth::Auth,
    clock,
    config::{
        Config, Recording,
        diff::{self, Change},
    },
    listener::set::ListenerSet,
    pipeline::Gateway,
};

/// Pause between two looks at the files.
const WATCH: Duration = Duration::from_secs(1);

/// Where the configuration comes from: the command line that the gateway was started with.
pub struct ConfigSource {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Reads and checks it again; on mistakes their text.
    pub load: Box<dyn Fn() -> Result<Config, String> + Send + Sync>,
}

/// Puts new configurations in force.
pub struct Reloader {
    source: Arc<ConfigSource>,
    gateway: Arc<Gateway>,
    listeners: Arc<ListenerSet>,
    /// One reload at a time; how the last one ended.
    last: Mutex<Option<Outcome>>,
    /// Certificates by file, as they were when they were read last.
    certificates: std::sync::Mutex<BTreeMap<PathBuf, String>>,
}

/// Why the configuration is read again.
#[derive(Debug, Clone)]
pub enum Cause {
    /// A file changed.
    File,
    /// SIGHUP.
    Signal,
    /// Somebody ordered it.
    Order {
        /// Who.
        actor: Actor,
        /// The address it came from.
        from: Option<String>,
    },
}

/// How a reload ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// When.
    pub at: String,
    /// What is different now; empty if nothing is, or if the configuration was refused.
    pub changes: Vec<Change>,
    /// Why it was refused: every mistake, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Reloader {
    /// Reloads from `source` into `gateway` and `listeners`.
    pub fn new(source: ConfigSource, gateway: Arc<Gateway>, listeners: Arc<ListenerSet>) -> Self {
        let certificates = std::sync::Mutex::new(certificates(&gateway.config.snapshot().files));
        Self { source: Arc::new(source), gateway, listeners, last: Mutex::new(None), certificates }
    }

    /// The file that is read, if there is one.
    pub fn file(&self) -> Option<&PathBuf> {
        self.source.file.as_ref()
    }

    /// Reads the configuration again and puts it in force; a mistake changes nothing.
    pub async fn reload(&self, cause: Cause) -> Outcome {
        let mut last = self.last.lock().await;
        let metrics = &self.gateway.metrics.reloads;
        let (changes, refused) = match self.swap(!matches!(cause, Cause::File)).await {
            Ok(changes) => {
                metrics.accepted(clock::now_ms());
                tracing::info!(changes = changes.len(), "configuration in force");
                (changes, None)
            }
            Err(reason) => {
                metrics.refused();
                tracing::error!(%reason, "configuration refused; the one in force stays");
                (Vec::new(), Some(reason))
            }
        };
        let outcome = Outcome { at: clock::text(clock::now_ms()), changes, refused };
        self.note(cause, &outcome);
        *last = Some(outcome.clone());
        outcome
    }

    /// How the last reload ended, if there was one.
    pub async fn last(&self) -> Option<Outcome> {
        self.last.lock().await.clone()
    }

    /// Notes in the audit log what was ordered, what became of it, and which certificates are others now.
    fn note(&self, cause: Cause, outcome: &Outcome) {
        let (actor, from, object) = match cause {
            Cause::File => (Actor::Gateway, None, "because a file changed"),
            Cause::Signal => (Actor::Gateway, None, "because of SIGHUP"),
            Cause::Order { actor, from } => (actor, from, "by order"),
        };
        let (action, after) = match &outcome.refused {
            None => ("config.reload", json!({ "changes": outcome.changes })),
            Some(reason) => ("config.refused", json!({ "reason": reason })),
        };
        let entry = Entry::by_gateway(action, object, Value::Null, after);
        self.gateway.audit.record(Entry { actor, from, ..entry });
        if outcome.refused.is_some() {
            return;
        }
        let now = certificates(&self.gateway.config.snapshot().files);
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, print) in &now {
            if let Some(before) = known.get(path).filter(|before| *before != print) {
                let (before, after) = (json!({ "sha256": before }), json!({ "sha256": print }));
                let entry =
                    Entry::by_gateway("certificate.changed", path.display().to_string(), before, after);
                self.gateway.audit.record(entry);
            }
        }
        *known = now;
    }

    async fn swap(&self, is_ordered: bool) -> Result<Vec<Change>, String> {
        let source = Arc::clone(&self.source);
        // Compiling rules takes a while.
        let loaded = tokio::task::spawn_blocking(move || (source.load)()).await;
        let config = loaded.map_err(|error| format!("reading the configuration failed: {error}"))??;
        let before = self.gateway.config.snapshot();
        let fixed = needs_restart(&before, &config);
        if !fixed.is_empty() {
            return Err(format!(
                "{} cannot change while the gateway runs; restart it, or undo that",
                fixed.join(", ")
            ));
        }
        let prepared = self.listeners.prepare(&config.listeners).map_err(|error| error.to_string())?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let changes = diff::between(&before.document, &config.document);
        for change in &changes {
            tracing::info!(path = change.path, "configuration changed");
        }
        let auth = self.gateway.auth.snapshot();
        let auth =
            Auth::new(&config, &self.gateway.site_key, Some(&auth)).map_err(|error| error.to_string())?;
        self.gateway.auth.swap(auth);
        self.gateway.rates.adopt(&config);
        self.gateway.upstream.adopt(&config);
        self.gateway.config.swap(Arc::new(config));
        self.listeners.apply(prepared).map_err(|error| error.to_string())?;
        if is_ordered || changes.iter().any(|change| change.path.starts_with("listeners")) {
            self.gateway.acme.reconsider();
        }
        Ok(changes)
    }

    /// Reloads when a file changes, and on SIGHUP. Runs until it is dropped.
    pub async fn run(&self) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return tracing::error!(%error, "SIGHUP cannot be heard; `gateway reload` works"),
        };
        let mut known = self.fingerprints();
        let mut changing = false;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    known = self.fingerprints();
                    self.reload(Cause::Signal).await;
                }
                () = tokio::time::sleep(WATCH) => {
                    let now = self.fingerprints();
                    // Once more the same: whoever writes has finished.
                    if changing && now == known {
                        changing = false;
                        self.reload(Cause::File).await;
                        // Other files may be named now.
                        known = self.fingerprints();
                    } else if now != known {
                        changing = true;
                        known = now;
                    }
                }
            }
        }
    }

    /// What tells a changed file from the same one, for every file that is read.
    fn fingerprints(&self) -> Vec<(PathBuf, Option<(SystemTime, u64)>)> {
        let config = self.gateway.config.snapshot();
        let files = self
            .source
            .file
            .iter()
            .chain(self.source.file.is_some().then_some(&config.files).into_iter().flatten());
        let print = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        files.map(|path| (path.clone(), print(path))).collect()
    }
}

/// The SHA-256 fingerprint of the first certificate in each file that holds some.
fn certificates(files: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let print = |path: &PathBuf| {
        let first = CertificateDer::pem_file_iter(path).ok()?.next()?.ok()?;
        let digits = digest(&SHA256, &first).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some((path.clone(), digits))
    };
    files.iter().filter_map(print).collect()
}

/// What differs and is built into the running process.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let records = |config: &Config| {
        let records = &config.records;
        (records.key.clone(), records.keep, records.body_bytes, records.per_second)
    };
    let admin = |config: &Config| {
        let listeners = config.admin.listeners.iter();
        listeners.map(|listener| (listener.address, listener.tls.is_some())).collect::<Vec<_>>()
    };
    let is_full = |config: &Config| config.routes.iter().any(|route| route.record == Recording::Full);
    let differences = [
        ("state", before.state != after.state),
        ("admin.listeners", admin(before) != admin(after)),
        ("audit.rotate", before.audit_rotate != after.audit_rotate),
        ("store", before.store != after.store),
        ("records", records(before) != records(after)),
        ("the first `record: full`", is_full(after) && !is_full(before)),
        ("events_per_second", before.events_per_second != after.events_per_second),
        ("limits.connections", before.limits.connections != after.limits.connections),
        ("waf.model", before.waf.model != after.waf.model),
        ("waf.clients", before.waf.clients != after.waf.clients),
    ];
    differences.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}
