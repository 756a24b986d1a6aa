//! Certificates by ACME (RFC 8555): fetched and renewed in the background and kept below `state`. Whatever fails here is
//! told and tried again; the gateway goes on with what it has.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    audit::{Audit, Entry},
    clock,
    config::{AcmeSettings, Config, ConfigSlot},
    store::model_directory::write_whole,
    telemetry::tls_metrics::TlsMetrics,
    tls::{automatic::Automatic, certificate::Certificate},
};

mod account;
mod order;
mod tokens;

pub use tokens::answer;

use tokens::Tokens;

/// Longest time for one certificate, from the first request to the last.
const WHOLE: Duration = Duration::from_secs(300);

/// Wait after a failure, and how it grows: the authorities count failures per hour.
const FIRST_WAIT_MS: u64 = 60 * 1000;
const GROWTH: u64 = 4;
const LONGEST_WAIT_MS: u64 = 6 * 60 * 60 * 1000;

/// Wait after a success, whatever the certificate says.
const LEAST_WAIT_MS: u64 = 1000;

/// Longest sleep: clocks are set, and machines are suspended.
const LOOK: Duration = Duration::from_secs(3600);

/// Certificates that are fetched.
#[derive(Debug)]
pub struct Acme {
    directory: PathBuf,
    tokens: Tokens,
    held: Mutex<HashMap<String, Arc<Held>>>,
    wake: Notify,
}

/// One certificate.
#[derive(Debug, Default)]
struct Held {
    automatic: Arc<Automatic>,
    attempts: Mutex<Attempts>,
}

/// How fetching it went.
#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    /// No further attempt before that.
    next_ms: u64,
    last_error: Option<String>,
}

/// How one certificate stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// It, if there is one.
    pub certificate: Option<Arc<Certificate>>,
    /// Why the last attempt to get another one failed, if it did.
    pub last_error: Option<String>,
    /// When it is tried again, in milliseconds since 1970.
    pub next_ms: u64,
}

impl Acme {
    /// Keeps what it fetches below `state`.
    pub fn new(state: &Path) -> Self {
        Self {
            directory: state.join("acme"),
            tokens: Tokens::default(),
            held: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// What listeners show: the certificate that is kept, or soon the one that is fetched.
    pub fn automatic(&self, settings: &AcmeSettings) -> Arc<Automatic> {
        Arc::clone(&self.held(settings).automatic)
    }

    fn held(&self, settings: &AcmeSettings) -> Arc<Held> {
        let name = name(settings);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get(&name) {
            return Arc::clone(held);
        }
        let fresh = Arc::new(Held::default());
        let file = self.directory.join(&name);
        match fs::read(&file) {
            Ok(pem) => match Certificate::parse(&pem) {
                Ok(certificate) => fresh.automatic.put(certificate),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "certificate of no use; fetching anew")
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "certificate cannot be read; fetching anew")
            }
        }
        held.insert(name, Arc::clone(&fresh));
        fresh
    }

    /// How the certificate stands.
    pub fn standing(&self, settings: &AcmeSettings) -> Standing {
        let held = self.held(settings);
        let certificate = held.automatic.certificate();
        let attempts = held.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        Standing {
            last_error: attempts.last_error.clone(),
            next_ms: due_ms(certificate.as_deref(), &attempts),
            certificate,
        }
    }

    /// A person has changed something: what failed is tried again at once.
    pub fn reconsider(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for held in held.values() {
            let mut attempts = held.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            attempts.next_ms = 0;
        }
        self.wake.notify_one();
    }

    /// Fetches and renews what the configuration in force asks for. Runs until it is dropped.
    pub async fn run(&self, config: &ConfigSlot, metrics: &TlsMetrics, audit: &Audit) {
        loop {
            let config = config.snapshot();
            let mut next = clock::now_ms().saturating_add(clock::millis(LOOK));
            for settings in wanted(&config) {
                if self.standing(settings).next_ms <= clock::now_ms() {
                    let before = self.standing(settings).certificate.map(|old| old.not_after_ms());
                    let until = self.fetch(settings).await;
                    metrics.ordered(until.is_some());
                    if let Some(until) = until {
                        let (before, after) = (ends(before), ends(Some(until)));
                        let hosts = settings.hosts.join(", ");
                        audit.record(Entry::by_gateway("certificate.changed", hosts, before, after));
                    }
                }
                next = next.min(self.standing(settings).next_ms);
            }
            let wait = Duration::from_millis(next.saturating_sub(clock::now_ms()));
            tokio::select! {
                () = sleep(wait) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// One attempt; until when the certificate is good, in milliseconds since 1970, if there is a new one.
    async fn fetch(&self, settings: &AcmeSettings) -> Option<u64> {
        let held = self.held(settings);
        let hosts = settings.hosts.join(", ");
        let outcome = match timeout(WHOLE, self.replace(settings, &held)).await {
            Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("not done after {} s", WHOLE.as_secs())),
        };
        held.automatic.proven();
        let mut attempts = held.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(until_ms) => {
                // An authority that hands out what is due already must not be asked again and again.
                let next_ms = clock::now_ms().saturating_add(LEAST_WAIT_MS);
                *attempts = Attempts { next_ms, ..Attempts::default() };
                tracing::info!(hosts, until = clock::text(until_ms), "certificate fetched");
                Some(until_ms)
            }
            Err(error) => {
                let wait = FIRST_WAIT_MS.saturating_mul(GROWTH.saturating_pow(attempts.failures));
                attempts.failures = attempts.failures.saturating_add(1);
                attempts.next_ms = clock::now_ms().saturating_add(wait.min(LONGEST_WAIT_MS));
                let next = clock::text(attempts.next_ms);
                tracing::warn!(hosts, %error, next, "no certificate by ACME; what is there stays in use");
                attempts.last_error = Some(error);
                None
            }
        }
    }

    async fn replace(&self, settings: &AcmeSettings, held: &Held) -> anyhow::Result<u64> {
        let directory = self.directory.clone();
        spawn_blocking(move || fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)).await??;
        let account = account::open(&self.directory, settings).await?;
        let pem = order::order(&account, settings, &self.tokens, &held.automatic).await?;
        let certificate = Certificate::parse(pem.as_bytes())?;
        let file = self.directory.join(name(settings));
        spawn_blocking(move || write_whole(&file, pem.as_bytes(), 0o600)).await??;
        let until_ms = certificate.not_after_ms();
        held.automatic.put(certificate);
        Ok(until_ms)
    }
}

/// Until when a certificate is good, for the audit log.
fn ends(until_ms: Option<u64>) -> Value {
    until_ms.map_or(Value::Null, |until_ms| json!({ "expires": clock::text(until_ms) }))
}

/// What a configuration asks for.
fn wanted(config: &Config) -> impl Iterator<Item = &Arc<AcmeSettings>> {
    config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.acme.as_ref())
}

/// When to see to a certificate.
fn due_ms(certificate: Option<&Certificate>, attempts: &Attempts) -> u64 {
    attempts.next_ms.max(certificate.map_or(0, Certificate::renewal_ms))
}

/// The file in which a certificate is kept with its key: another authority or another set of hosts has another.
fn name(settings: &AcmeSettings) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [&settings.directory].into_iter().chain(&settings.hosts) {
        hash.update(part.as_bytes()).update(&[0]);
    }
    let first = settings.hosts.first().map_or("", String::as_str);
    let digest = hash.finalize().to_hex();
    format!(
        "{}-{}.pem",
        first.get(..first.len().min(100)).unwrap_or_default(),
        digest.get(..16).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8), to: (i32, u8)) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, 1);
        params.not_after = date_time_ymd(to.0, to.1, 1);
        let made = params.self_signed(&key).unwrap();
        Certificate::parse(format!("{}{}", key.serialize_pem(), made.pem()).as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_is_seen_to_in_time_and_failures_wait() {
        let at = |text| clock::parse(text).unwrap();
        // 90 days in all.
        let certificate = certificate((2026, 1), (2026, 4));
        let mut attempts = Attempts::default();
        assert_eq!(due_ms(None, &attempts), 0);
        assert_eq!(due_ms(Some(&certificate), &attempts), at("2026-03-02T00:00:00Z"));
        attempts.next_ms = at("2026-03-02T00:01:00Z");
        assert_eq!(due_ms(Some(&certificate), &attempts), attempts.next_ms);
        assert_eq!(due_ms(None, &attempts), attempts.next_ms);
    }

    #[test]
    fn other_hosts_or_another_authority_have_another_file() {
        let settings = |directory: &str, hosts: &[&str]| AcmeSettings {
            directory: directory.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            contact: Vec::new(),
            ca: Vec::new(),
            challenge: crate::config::Challenge::Http01,
            binding: None,
        };
        let one = name(&settings("https://ca.example", &["a.example", "b.example"]));
        assert!(one.starts_with("a.example-") && one.ends_with(".pem"), "{one}");
        assert_ne!(one, name(&settings("https://ca.example", &["a.example"])));
        assert_ne!(one, name(&settings("https://staging.ca.example", &["a.example", "b.example"])));
        assert_ne!(one, name(&settings("https://ca.example", &["a.example", "b.exampl", "e"])));
        assert_eq!(name(&settings("https://ca.example", &[&"a".repeat(250)])).len(), 100 + 1 + 16 + 4);
    }
}
