//! Clients that ask one question all the time, and say what went wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which connections are kept from one question to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// None.
    None,
    /// Those of every other asker.
    Half,
}

/// Asks all the time; what went wrong, and how often it asked.
#[derive(Debug)]
pub struct Asking {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    askers: Vec<JoinHandle<Vec<String>>>,
}

impl Asking {
    /// Starts so many askers of `url`, who trust the certificates in `root`; every other one keeps its connections, if
    /// they may be `kept`.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn start(url: &str, root: Option<&str>, kept: Kept, askers: usize) -> Result<Self> {
        // Fails only if one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ask = |index: usize| -> Result<JoinHandle<Vec<String>>> {
            let mut builder = reqwest::Client::builder().timeout(PATIENCE);
            if let Some(pem) = root {
                let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes())?;
                builder = builder.tls_certs_only(roots);
            }
            if kept == Kept::None || index.is_multiple_of(2) {
                builder = builder.pool_max_idle_per_host(0);
            }
            let (client, url) = (builder.build()?, url.to_owned());
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            Ok(tokio::spawn(async move {
                let mut wrong = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.get(&url).send().await {
                        Ok(answer) if answer.status() == 200 => {}
                        Ok(answer) => wrong.push(answer.status().to_string()),
                        Err(error) => wrong.push(format!("{error:?}")),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                wrong
            }))
        };
        let askers = (0..askers).map(ask).collect::<Result<_>>()?;
        Ok(Self { stop, asked, askers })
    }

    /// How many questions were answered, or not.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits until so many `more` were.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub async fn wait_asked(&self, more: u64) -> Result<()> {
        let goal = self.asked() + more;
        let asked = async {
            while self.asked() < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.context("nobody answers any more")
    }

    /// Everything that went wrong.
    ///
    /// # Errors
    /// An asker panicked.
    pub async fn end(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        for asker in self.askers {
            wrong.extend(asker.await?);
        }
        Ok(wrong)
    }
}
