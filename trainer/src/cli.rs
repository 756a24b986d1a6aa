//! The command line.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use ed25519_dalek::{SigningKey, VerifyingKey};
use waf_model::{artifact, model::Model, observation::ValueKey};

use crate::{
    backtest::{self, Backtest},
    calibrate::Budgets,
    cli::base::BaseArgs,
    dataset::{Dataset, from_files::FileDataset},
    durable,
    evaluate::{Part, evaluate},
    gate::{Approved, Refusal},
    ingest::{Ingested, Source, drain, now_ms, redis, segments::StateSegments},
    lake::Lake,
    pipeline::{Outcome, Place, Settings, learn},
    publish::Shelf,
    report::html,
    rules::{BUILT_IN_NAME, Rules},
    service,
    state::{self, State},
};

pub mod base;

/// Learns models of normal traffic from what the gateway logged.
#[derive(Debug, Parser)]
#[command(name = "trainer", version)]
pub struct Cli {
    /// State directory: lake, keys, and, without Redis, the gateway's events and the models.
    #[arg(long, global = true, env = "PORTCULLIS_STATE", default_value = "portcullis-state")]
    state: PathBuf,
    /// Redis to take events from and publish models to, `redis://host:port`; without it, the state directory.
    #[arg(long, global = true, env = "PORTCULLIS_STORE")]
    store: Option<String>,
    /// Name of this trainer in the Redis consumer group.
    #[arg(long, global = true, default_value = "trainer")]
    consumer: String,
    /// Signing key; made at first use. Default: keys/trainer.key in the state directory.
    #[arg(long, global = true)]
    key: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ingest, train, gate and publish, for ever.
    Run(RunArgs),
    /// Take new events into the lake.
    Ingest(IngestArgs),
    /// Learn a model from labelled files or from the lake, and write it to a file.
    Train(TrainArgs),
    /// Judge a model on labelled requests.
    Evaluate(EvaluateArgs),
    /// Replay the lake through a model, or recorded requests through rules: who would newly be stopped, who newly let
    /// through. Exit code 2 if anyone.
    Backtest(BacktestArgs),
    /// Put a trained model in force.
    Publish(PublishArgs),
    /// Train the base knowledge that ships with the gateway, or judge it on sites and attacks it never saw.
    Base(BaseArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Time between one training and the next, if there is enough new traffic.
    #[arg(long, default_value = "1h", value_parser = duration)]
    interval: Duration,
    /// Time between one look for new events and the next.
    #[arg(long, default_value = "5s", value_parser = duration)]
    poll: Duration,
    /// Days that events are kept in the lake.
    #[arg(long, default_value_t = 30)]
    keep_days: u32,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    learning: LearningArgs,
}

#[derive(Debug, Args)]
struct IngestArgs {
    /// Go on looking for new events at this interval.
    #[arg(long, value_parser = duration)]
    follow: Option<Duration>,
    #[command(flatten)]
    records: RecordArgs,
}

#[derive(Debug, Clone, Args)]
struct RecordArgs {
    /// Most MiB of whole requests (`record: full`) in the lake; beyond it the oldest go, whatever their time.
    #[arg(long, default_value_t = 4096)]
    records_mib: u64,
}

impl RecordArgs {
    fn bytes(&self) -> u64 {
        self.records_mib.saturating_mul(1 << 20)
    }
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// Labelled requests, JSON lines, plain or gzip. Without any, the lake is learned from.
    #[arg(long, num_args = 1.., conflicts_with = "lake")]
    input: Vec<PathBuf>,
    /// The lake. Default: lake in the state directory.
    #[arg(long)]
    lake: Option<PathBuf>,
    /// Where to write the model.
    #[arg(long)]
    output: PathBuf,
    /// Where to write the report, as HTML; the same as JSON goes beside it.
    #[arg(long)]
    report: Option<PathBuf>,
    #[command(flatten)]
    learning: LearningArgs,
}

#[derive(Debug, Args)]
struct EvaluateArgs {
    /// The model.
    #[arg(long)]
    model: PathBuf,
    /// Labelled requests, JSON lines, plain or gzip.
    #[arg(long, num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Which harmless requests to judge.
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Public key of the model's signer. Default: that of this trainer.
    #[arg(long)]
    trust: Option<PathBuf>,
    /// Where to write the result with its curves, as HTML; the same as JSON goes beside it.
    #[arg(long)]
    report: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("tried").required(true).args(["model", "rules", "exclusion"])))]
struct BacktestArgs {
    /// The model to try.
    #[arg(long)]
    model: Option<PathBuf>,
    /// What to compare with: a model (default: the one in force; without one, what was decided at the time), or rule
    /// files (default with --exclusion: `builtin`; with --rules: what was decided at the time).
    #[arg(long, num_args = 1..)]
    against: Vec<PathBuf>,
    /// Rule files to try on recorded requests, all that would be in force, in order; `builtin` stands for the
    /// gateway's own.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// A file of exclusions to try behind the rules of --against: `SecRuleRemoveById`, `SecRuleUpdateTargetById`, ...
    #[arg(long, value_name = "FILE")]
    exclusion: Option<PathBuf>,
    /// Key file of the gateway that recorded the requests. Default: keys/record.key in the state directory.
    #[arg(long)]
    record_key: Option<PathBuf>,
    /// The lake. Default: lake in the state directory.
    #[arg(long)]
    lake: Option<PathBuf>,
    /// Public key of the models' signer. Default: that of this trainer.
    #[arg(long)]
    trust: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
struct PublishArgs {
    /// The model, as `trainer train` wrote it.
    #[arg(long)]
    model: PathBuf,
}

#[derive(Debug, Clone, Args)]
struct LearningArgs {
    /// Least clean requests to learn from.
    #[arg(long, default_value_t = 1000)]
    min_requests: u64,
    /// Highest share of clean requests that may be rejected.
    #[arg(long, default_value_t = 1e-4, value_parser = share)]
    request_budget: f64,
    /// Highest share of clean client-days that may be blocked.
    #[arg(long, default_value_t = 1e-4, value_parser = share)]
    client_budget: f64,
    /// Confidence that the true shares are within the budgets.
    #[arg(long, default_value_t = 0.95, value_parser = share)]
    confidence: f64,
    /// Largest share of the requests that may be removed as not clean before the rest is learned from.
    #[arg(long, default_value_t = 0.2, value_parser = share)]
    max_removed: f64,
    /// Accept that traffic or clusters moved far since the model in force: after a release of the site, for example.
    #[arg(long)]
    approve_drift: bool,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Cli {
    /// Does what was asked; `out` is standard output. The exit code is 2 where a comparison found a difference.
    ///
    /// # Errors
    /// Whatever went wrong, with how to mend it.
    pub fn run(&self, out: &mut dyn Write) -> Result<ExitCode> {
        match &self.command {
            Command::Run(args) => self.run_service(args)?,
            Command::Ingest(args) => self.ingest(args, out)?,
            Command::Train(args) => self.train(args, out)?,
            Command::Evaluate(args) => self.evaluate(args, out)?,
            Command::Publish(args) => self.publish(args, out)?,
            Command::Backtest(args) => return self.backtest(args, out),
            Command::Base(args) => args.run(out)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn run_service(&self, args: &RunArgs) -> Result<()> {
        let state = State::open(&self.state)?;
        let _lock = state.lock()?;
        let key = self.signing_key(&state)?;
        let lake = Lake::new(state.lake());
        let mut source = self.source(&state, &lake)?;
        service::run(
            &service::Site {
                lake,
                shelf: self.shelf(&state),
                site_key: Box::new(|| self.site_key(&state)),
                key,
                settings: args.learning.settings(),
                reports: state.reports(),
            },
            source.as_mut(),
            &service::Schedule {
                interval: args.interval,
                poll: args.poll,
                keep_days: args.keep_days,
                full_bytes: args.records.bytes(),
            },
        )
    }

    fn ingest(&self, args: &IngestArgs, out: &mut dyn Write) -> Result<()> {
        let state = State::open(&self.state)?;
        let _lock = state.lock()?;
        let lake = Lake::new(state.lake());
        let mut source = self.source(&state, &lake)?;
        loop {
            let Ingested { events, reviews, full, rejected, damaged } = drain(source.as_mut(), &lake)?;
            writeln!(
                out,
                "{events} events, {reviews} reviews and {full} whole requests ingested, {rejected} rejected, {damaged} \
                 damaged places"
            )?;
            service::retain_full(&lake, args.records.bytes());
            match args.follow {
                Some(interval) => service::pause(interval),
                None => return Ok(()),
            }
        }
    }

    fn train(&self, args: &TrainArgs, out: &mut dyn Write) -> Result<()> {
        let state = State::open(&self.state)?;
        let key = self.signing_key(&state)?;
        let shelf = self.shelf(&state);
        let place = Place { seq: shelf.last()? + 1, now_ms: now_ms(), in_force: shelf.current()? };
        let open = || {
            if args.input.is_empty() {
                let path = args.lake.clone().unwrap_or_else(|| state.lake());
                let site_key = self.site_key(&state)?.context(NO_SITE_KEY)?;
                Dataset::of_lake(Lake::new(path), site_key)
            } else {
                let site_key = match self.site_key(&state)? {
                    Some(site_key) => site_key,
                    None => self.make_site_key(&state)?,
                };
                Dataset::of_files(args.input.clone(), site_key)
            }
        };
        let Outcome { report, verdict, .. } = learn(open, &args.learning.settings(), place, &key)?;
        writeln!(out, "{report}")?;
        if let Some(path) = &args.report {
            let refusals: Vec<String> =
                verdict.as_ref().err().into_iter().flatten().map(ToString::to_string).collect();
            write_report(path, &html::training(&report, &refusals), &report)?;
        }
        let approved = verdict.map_err(refused)?;
        durable::write(&args.output, approved.bytes())
            .with_context(|| format!("cannot write {}", args.output.display()))?;
        writeln!(out, "  written     {} ({} bytes)", args.output.display(), approved.bytes().len())?;
        let public = state::to_hex(key.verifying_key().as_bytes());
        writeln!(out, "  signed by   {public}")?;
        writeln!(
            out,
            "A gateway with the same state directory trusts this key; any other does once it is listed under \
             waf.model_keys in its configuration."
        )?;
        Ok(())
    }

    fn evaluate(&self, args: &EvaluateArgs, out: &mut dyn Write) -> Result<()> {
        let model = self.model(&args.model, args.trust.as_deref())?;
        let files = FileDataset::plan(args.input.clone(), *model.value_key())?;
        let evaluation = evaluate(&model, &files, args.part)?;
        if let Some(path) = &args.report {
            write_report(path, &html::evaluation(&evaluation, model.seq()), &evaluation)?;
        }
        match args.output {
            Format::Table => write!(out, "{evaluation}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&evaluation)?)?,
        }
        Ok(())
    }

    fn backtest(&self, args: &BacktestArgs, out: &mut dyn Write) -> Result<ExitCode> {
        let state = State::open(&self.state)?;
        let lake = Lake::new(args.lake.clone().unwrap_or_else(|| state.lake()));
        let found = match &args.model {
            Some(path) => self.backtest_model(args, path, &state, &lake)?,
            None => self.backtest_rules(args, &state, &lake)?,
        };
        match args.output {
            Format::Table => write!(out, "{found}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?,
        }
        Ok(if found.differs() { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }

    fn backtest_rules(&self, args: &BacktestArgs, state: &State, lake: &Lake) -> Result<Backtest> {
        let key = state::record_key(&args.record_key.clone().unwrap_or_else(|| state.record_key()))?;
        let mut against = match (args.against.as_slice(), &args.exclusion) {
            ([], None) => None,
            ([], Some(_)) => Some(Rules::read(&[BUILT_IN_NAME.into()])?),
            (files, _) => Some(Rules::read(files)?),
        };
        let tried = match &args.exclusion {
            None => Rules::read(&args.rules)?,
            Some(file) => {
                let mut tried = against.clone().unwrap_or_default();
                tried.add(file)?;
                tried
            }
        };
        let found = backtest::rules::backtest(lake, &key, &tried, against.take().as_ref())?;
        if found.requests == 0 {
            bail!(
                "{} holds no whole request that can be judged ({} skipped): rules are tried on the requests of routes \
                 with `record: full`; record some, ingest them, name the lake with --lake and the gateway's key with \
                 --record-key",
                lake.path().display(),
                found.skipped
            );
        }
        Ok(found)
    }

    fn backtest_model(
        &self,
        args: &BacktestArgs,
        path: &Path,
        state: &State,
        lake: &Lake,
    ) -> Result<Backtest> {
        let model = self.model(path, args.trust.as_deref())?;
        let current = match args.against.as_slice() {
            [path] => Some(self.model(path, args.trust.as_deref())?),
            [_, ..] => bail!("--against takes one model"),
            [] => match self.shelf(state).current()? {
                Some(bytes) => {
                    let trusted = self.trusted(args.trust.as_deref())?;
                    Some(artifact::decode(&bytes, &[trusted]).context("the model in force")?)
                }
                None => None,
            },
        };
        let found = backtest::backtest(lake, &model, current.as_ref())?;
        if found.requests == 0 {
            bail!(
                "{} holds no event that this model can judge ({} skipped): name the lake with --lake, and use a model \
                 that was learned under the same site key",
                lake.path().display(),
                found.skipped
            );
        }
        Ok(found)
    }

    fn model(&self, path: &Path, trust: Option<&Path>) -> Result<Model> {
        artifact::decode(&read(path)?, &[self.trusted(trust)?]).with_context(|| path.display().to_string())
    }

    fn trusted(&self, trust: Option<&Path>) -> Result<VerifyingKey> {
        match trust {
            Some(path) => state::verifying_key(path),
            None => state::verifying_key(&state::public_key_file(&self.key_file(&State::open(&self.state)?)))
                .context("the model's signer is not known; name its public key with --trust"),
        }
    }

    fn publish(&self, args: &PublishArgs, out: &mut dyn Write) -> Result<()> {
        let state = State::open(&self.state)?;
        let key = self.signing_key(&state)?;
        let approved = Approved::from_file(read(&args.model)?, &key)
            .map_err(|refusal| anyhow::anyhow!("{}: {refusal}", args.model.display()))?;
        let shelf = self.shelf(&state);
        shelf.publish(&approved)?;
        writeln!(out, "model {} published to {}", approved.seq(), shelf.name())?;
        Ok(())
    }

    fn key_file(&self, state: &State) -> PathBuf {
        self.key.clone().unwrap_or_else(|| state.signing_key())
    }

    fn signing_key(&self, state: &State) -> Result<SigningKey> {
        state::signing_key(&self.key_file(state))
    }

    fn site_key(&self, state: &State) -> Result<Option<ValueKey>> {
        match &self.store {
            Some(url) => redis::site_key(&mut redis::connect(url)?),
            None => state.site_key(),
        }
    }

    fn make_site_key(&self, state: &State) -> Result<ValueKey> {
        match &self.store {
            Some(url) => redis::make_site_key(&mut redis::connect(url)?),
            None => state.make_site_key(),
        }
    }

    fn shelf(&self, state: &State) -> Shelf {
        match &self.store {
            Some(url) => Shelf::Redis(url.clone()),
            None => Shelf::Directory(state.models()),
        }
    }

    fn source(&self, state: &State, lake: &Lake) -> Result<Box<dyn Source>> {
        Ok(match &self.store {
            Some(url) => Box::new(redis::Streams::new(url, &self.consumer)),
            None => Box::new(StateSegments::open(state.events(), state.full_records(), lake)?),
        })
    }
}

impl LearningArgs {
    fn settings(&self) -> Settings {
        Settings {
            seed: self.seed,
            budgets: Budgets {
                request: self.request_budget,
                client: self.client_budget,
                confidence: self.confidence,
            },
            min_requests: self.min_requests,
            may_remove: self.max_removed,
            approve_drift: self.approve_drift,
        }
    }
}

/// What to do when the lake's events cannot be compared with anything.
pub(crate) const NO_SITE_KEY: &str = "there is no site key yet: the gateway makes it when it starts; start it, and use the same --state or --store";

/// Refusals as one error.
pub(crate) fn refused(refusals: Vec<Refusal>) -> anyhow::Error {
    let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("the model is refused, the one in force stays:\n  {}", reasons.join("\n  "))
}

/// Writes a report as HTML to `path`, and as JSON beside it.
pub(crate) fn write_report(path: &Path, page: &str, data: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(data)?;
    for (path, bytes) in [(path.to_owned(), page.as_bytes()), (path.with_extension("json"), &json)] {
        durable::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads `500ms`, `10s`, `5m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => bail!("write a number with a unit: 500ms, 10s, 5m, 2h, 1d"),
    };
    let number: u64 = number.parse().context("write a number with a unit: 10s")?;
    Ok(Duration::from_millis(number.saturating_mul(unit)))
}

/// Reads a number between 0 and 1.
fn share(text: &str) -> Result<f64> {
    let share: f64 = text.parse().context("write a number such as 0.001 or 1e-3")?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { bail!("must lie between 0 and 1") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_shares_need_sense() {
        assert_eq!(duration("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        for wrong in ["5", "m", "-1s", "1.5s", "5 m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(share("1e-3").unwrap(), 0.001);
        for wrong in ["0", "1", "NaN", "-0.1", "x"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
