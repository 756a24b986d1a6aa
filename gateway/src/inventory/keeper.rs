//! Adds sightings up off the request path, and keeps the sum: in a file of the state directory, and in Redis beside
//! those of other gateways.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Inventory, Sighting, catalog::Catalog};
use crate::{clock, store::model_directory::write_whole};

/// Name of the file in the state directory.
const FILE: &str = "inventory.json";

/// Pause between two rounds of saving.
const SAVE: Duration = Duration::from_secs(30);

/// Pause between two looks at the queue: requests need not wake anybody.
const LOOK: Duration = Duration::from_millis(20);

/// Sightings that are added up at a time.
const BATCH: usize = 512;

/// What the last gateway with this state directory saw; nothing if there was none. A file that cannot be read is put
/// aside.
///
/// # Errors
/// The file is there and cannot be opened, or not be put aside.
pub fn open(state: &Path) -> io::Result<Catalog> {
    let path = state.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Catalog::default()),
        Err(error) => return Err(error),
    };
    Catalog::from_json(&bytes).or_else(|error| {
        let aside = path.with_extension("damaged");
        tracing::error!(error, aside = %aside.display(), "the inventory cannot be read and begins anew");
        fs::rename(&path, &aside)?;
        Ok(Catalog::default())
    })
}

/// Adds up and keeps.
pub struct Keeper {
    /// What is kept.
    pub inventory: Arc<Inventory>,
    /// What is added.
    pub queue: mpsc::Receiver<Sighting>,
    /// The state directory.
    pub state: PathBuf,
}

impl Keeper {
    /// Runs until `stop`; then takes what is left in the queue and saves.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut saving = tokio::time::interval(SAVE);
        saving.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = false;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = saving.tick() => {
                    if std::mem::take(&mut changed) {
                        self.save().await;
                    }
                }
                count = self.queue.recv_many(&mut batch, BATCH) => {
                    self.inventory.learn(batch.drain(..));
                    changed |= count > 0;
                    // More is waiting already.
                    if count < BATCH {
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            self.inventory.learn(batch.drain(..));
        }
        self.save().await;
    }

    async fn save(&self) {
        let (inventory, path) = (Arc::clone(&self.inventory), self.state.join(FILE));
        let written = tokio::task::spawn_blocking(move || {
            inventory.lock().make_room(clock::now_ms());
            let bytes = inventory.catalog().to_json();
            write_whole(&path, &bytes, 0o600).map(|()| bytes)
        });
        let bytes = match written.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return tracing::error!(%error, "the inventory cannot be saved"),
            Err(error) => return tracing::error!(%error, "saving the inventory failed"),
        };
        if let Some(shared) = &self.inventory.shared
            && let Err(error) = shared.publish(&bytes).await
        {
            tracing::warn!(%error, "other gateways do not see the latest inventory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_put_aside() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(open(state.path()).unwrap(), Catalog::default());
        fs::write(state.path().join(FILE), "{\"version\": 1, \"rou").unwrap();
        assert_eq!(open(state.path()).unwrap(), Catalog::default());
        assert!(state.path().join("inventory.damaged").exists() && !state.path().join(FILE).exists());
    }
}
