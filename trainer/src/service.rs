//! `trainer run`: ingest continuously, train when there is enough new traffic, publish what passes the gates.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use waf_model::observation::ValueKey;

use crate::{
    cli::{NO_SITE_KEY, refused, write_report},
    dataset::Dataset,
    ingest::{Source, drain, now_ms},
    lake::{Lake, day::Day},
    pipeline::{Outcome, Place, Settings, learn},
    publish::Shelf,
    report::html,
};

/// What belongs to one site.
pub struct Site<'a> {
    /// Where events are kept.
    pub lake: Lake,
    /// Where models are published.
    pub shelf: Shelf,
    /// Asks for the site key, which the gateway makes.
    pub site_key: Box<dyn Fn() -> Result<Option<ValueKey>> + 'a>,
    /// Signs models.
    pub key: SigningKey,
    /// How to learn.
    pub settings: Settings,
    /// Where reports go, one for each model that was tried.
    pub reports: PathBuf,
}

/// When to do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Between one training and the next.
    pub interval: Duration,
    /// Between one look for new events and the next.
    pub poll: Duration,
    /// Days that events are kept.
    pub keep_days: u32,
    /// Most bytes of whole requests that are kept.
    pub full_bytes: u64,
}

/// Works until the process is ended. A failure is logged, and tried again.
///
/// # Errors
/// The lake cannot be read at the start.
pub fn run(site: &Site<'_>, source: &mut dyn Source, schedule: &Schedule) -> Result<()> {
    let mut new = site.lake.count_events()?;
    let mut trained: Option<Instant> = None;
    tracing::info!(source = source.name(), lake = %site.lake.path().display(), events = new, "trainer runs");
    loop {
        match drain(source, &site.lake) {
            Ok(ingested) if ingested.is_empty() => {}
            Ok(ingested) => {
                new += ingested.events;
                tracing::info!(events = ingested.events, reviews = ingested.reviews, "ingested");
            }
            Err(error) => tracing::error!("not ingested, trying again: {error:#}"),
        }
        retain_full(&site.lake, schedule.full_bytes);
        let due = trained.is_none_or(|at| at.elapsed() >= schedule.interval);
        if due && new >= site.settings.min_requests {
            trained = Some(Instant::now());
            match train_and_publish(site) {
                Ok(()) => new = 0,
                Err(error) => tracing::error!("no new model: {error:#}"),
            }
            match site.lake.retain(Day::of(now_ms()), schedule.keep_days) {
                Ok(0) => {}
                Ok(days) => tracing::info!(days, "old days removed from the lake"),
                Err(error) => tracing::error!("{error:#}"),
            }
        }
        pause(schedule.poll);
    }
}

/// Removes whole requests whose time is over, and the oldest beyond `most` bytes. A failure is logged.
pub(crate) fn retain_full(lake: &Lake, most: u64) {
    match lake.retain_full(Day::of(now_ms()), most) {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "old whole requests removed from the lake"),
        Err(error) => tracing::error!("{error:#}"),
    }
}

/// Sleeps between two looks at the source.
#[expect(clippy::disallowed_methods, reason = "the trainer has no runtime whose workers could be blocked")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// One round of learning from all of the lake.
fn train_and_publish(site: &Site<'_>) -> Result<()> {
    let site_key = (site.site_key)()?.context(NO_SITE_KEY)?;
    let seq = site.shelf.last()? + 1;
    let place = Place { seq, now_ms: now_ms(), in_force: site.shelf.current()? };
    let open = || Dataset::of_lake(site.lake.clone(), site_key);
    let Outcome { report, verdict, .. } = learn(open, &site.settings, place, &site.key)?;
    tracing::info!("{report}");
    let refusals: Vec<String> =
        verdict.as_ref().err().into_iter().flatten().map(ToString::to_string).collect();
    write_report(&site.reports.join(format!("{seq}.html")), &html::training(&report, &refusals), &report)?;
    let approved = verdict.map_err(refused)?;
    site.shelf.publish(&approved)?;
    tracing::info!(seq, shelf = site.shelf.name(), "published");
    Ok(())
}
