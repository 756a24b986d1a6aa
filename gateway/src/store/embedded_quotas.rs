//! Quotas of one gateway in a redb file, so that a restart does not give them anew.

use std::{path::Path, sync::Arc};

use redb::{Database, ReadableTable, TableDefinition};

use crate::{
    clock,
    store::{Charge, QuotaStore, StoreError, StoreFuture},
};

/// Counts by limit, end of the period, and key.
const QUOTAS: TableDefinition<'_, (&str, u64, u64), u64> = TableDefinition::new("quotas");

/// Counts in one redb file, which only this process opens.
#[derive(Debug, Clone)]
pub struct EmbeddedQuotas {
    database: Arc<Database>,
}

impl EmbeddedQuotas {
    /// Opens `<state>/quotas.redb`, making it if it is missing, and forgets periods that are over. Blocks until done.
    ///
    /// # Errors
    /// The file cannot be opened: another gateway holds it, or it is damaged.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let path = state.join("quotas.redb");
        let unexpected = |error: &dyn std::fmt::Display| StoreError::Unexpected {
            at: path.display().to_string(),
            what: format!(
                "{error}; stop the other gateway that uses it, or move the file away if it is damaged"
            ),
        };
        let database = Database::create(&path).map_err(|error| unexpected(&error))?;
        let store = Self { database: Arc::new(database) };
        let now_ms = clock::now_ms();
        let forget = |table: &mut redb::Table<'_, (&'static str, u64, u64), u64>| {
            table.retain(|(_, ends_ms, _), _| ends_ms > now_ms)
        };
        store.write(forget).map_err(|error| unexpected(&error))?;
        Ok(store)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut redb::Table<'_, (&'static str, u64, u64), u64>) -> Result<T, redb::StorageError>,
    ) -> Result<T, StoreError> {
        let away = |error: &dyn std::fmt::Display| StoreError::Away(format!("quotas.redb: {error}"));
        let transaction = self.database.begin_write().map_err(|error| away(&error))?;
        let result = {
            let mut table = transaction.open_table(QUOTAS).map_err(|error| away(&error))?;
            work(&mut table).map_err(|error| away(&error))?
        };
        transaction.commit().map_err(|error| away(&error))?;
        Ok(result)
    }
}

impl QuotaStore for EmbeddedQuotas {
    fn charge_quotas<'a>(&'a self, limit: &'a str, charges: &'a [Charge]) -> StoreFuture<'a, Vec<u64>> {
        let (store, limit, charges) = (self.clone(), limit.to_owned(), charges.to_vec());
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || {
                store.write(|table| {
                    let mut levels = Vec::with_capacity(charges.len());
                    for charge in &charges {
                        let key = (limit.as_str(), charge.ends_ms, charge.key);
                        let before = table.get(key)?.map_or(0, |count| count.value());
                        let level = before.saturating_add(charge.count);
                        table.insert(key, level)?;
                        levels.push(level);
                    }
                    Ok(levels)
                })
            });
            written.await.map_err(|error| StoreError::Away(error.to_string()))?
        })
    }
}
