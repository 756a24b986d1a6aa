//! Models and the site key in Redis.

use redis::cmd;
use waf_model::keys;

use crate::store::{
    ModelSource, StoreError, StoreFuture,
    model_directory::MAX_ARTIFACT,
    redis::{blocks::scan, link::Link},
};

/// The sequence number that a person chose.
const CHOSEN: &str = "portcullis:model:chosen";

/// Prefix of artifacts.
const PREFIX: &str = "portcullis:model:";

/// Models under `portcullis:model:<seq>`.
#[derive(Debug)]
pub struct RedisModels {
    link: Link,
    /// Becomes the shared one if there is none yet.
    site_key: [u8; 16],
}

impl RedisModels {
    pub(super) fn new(link: Link, site_key: [u8; 16]) -> Self {
        Self { link, site_key }
    }

    async fn number(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let text: Option<String> = self.link.ask(cmd("GET").arg(key)).await?;
        text.map(|text| {
            text.trim().parse().map_err(|_| StoreError::Unexpected {
                at: key.to_owned(),
                what: format!("`{text}` is not a decimal sequence number; publish again or choose one"),
            })
        })
        .transpose()
    }
}

impl ModelSource for RedisModels {
    fn current(&self) -> StoreFuture<'_, Option<u64>> {
        Box::pin(self.number(keys::MODEL_CURRENT))
    }

    fn fetch(&self, seq: u64) -> StoreFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let key = keys::model(seq);
            let bytes: u64 = self.link.ask(cmd("STRLEN").arg(&key)).await?;
            if bytes == 0 || bytes > MAX_ARTIFACT {
                return Err(StoreError::Unexpected {
                    what: format!("{bytes} bytes; a model has 1 to {MAX_ARTIFACT}: publish it again"),
                    at: key,
                });
            }
            self.link.ask(cmd("GET").arg(&key)).await
        })
    }

    fn list(&self) -> StoreFuture<'_, Vec<u64>> {
        Box::pin(async move {
            let keys = scan(&self.link, &format!("{PREFIX}*")).await?;
            let mut found: Vec<u64> =
                keys.iter().filter_map(|key| key.strip_prefix(PREFIX)?.parse().ok()).collect();
            found.sort_unstable();
            found.dedup();
            Ok(found)
        })
    }

    fn chosen(&self) -> StoreFuture<'_, Option<u64>> {
        Box::pin(self.number(CHOSEN))
    }

    fn set_current(&self, seq: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let key = keys::model(seq);
            if !self.link.ask::<bool>(cmd("EXISTS").arg(&key)).await? {
                return Err(StoreError::Unexpected {
                    at: key,
                    what: "there is no such model; see `gateway models list`".to_owned(),
                });
            }
            let mut pipeline = redis::pipe();
            pipeline
                .atomic()
                .cmd("SET")
                .arg(CHOSEN)
                .arg(seq)
                .ignore()
                .cmd("SET")
                .arg(keys::MODEL_CURRENT)
                .arg(seq)
                .ignore()
                .cmd("XADD")
                .arg(&[keys::CHANGES, "MAXLEN", "~", "10000", "*", "kind", "model", "key"])
                .arg(&key)
                .ignore();
            self.link.ask_all::<()>(&pipeline).await
        })
    }

    fn in_force(&self) -> StoreFuture<'_, Option<u64>> {
        Box::pin(self.number(keys::MODEL_IN_FORCE))
    }

    fn set_in_force(&self, seq: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.link.ask(cmd("SET").arg(keys::MODEL_IN_FORCE).arg(seq)).await })
    }

    fn site_key(&self) -> StoreFuture<'_, [u8; 16]> {
        Box::pin(async move {
            let offered = self.site_key.as_slice();
            let kept: Option<Vec<u8>> =
                self.link.ask(cmd("SET").arg(keys::SITE_KEY).arg(offered).arg("NX").arg("GET")).await?;
            match kept {
                None => Ok(self.site_key),
                Some(kept) => kept.try_into().map_err(|_| StoreError::Unexpected {
                    at: keys::SITE_KEY.to_owned(),
                    what: "not 16 bytes; restore it, or delete it and train anew".to_owned(),
                }),
            }
        })
    }
}
