//! `gateway audit`: show the log, prove it whole, name its head.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Target, client::Client, output, show};
use crate::{
    admin::log::{self, RawFilter},
    audit::{
        DIRECTORY, Head,
        chain::{self, Broken, Proof},
    },
};

/// Pause before a log that ends within an entry is read once more: it may be written right now.
const AGAIN: Duration = Duration::from_millis(200);

/// What is done with the log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Entries, oldest first; by --admin from a gateway elsewhere.
    Show {
        /// From this moment on, such as 2026-11-24T18:00:00Z.
        #[arg(long)]
        since: Option<String>,
        /// Of this actor, such as `gateway`, `uid:1000` or `token:ops`.
        #[arg(long)]
        actor: Option<String>,
        /// This action, or all that begin so, such as `block` or `block.release`.
        #[arg(long)]
        action: Option<String>,
        /// So many of the latest.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// As JSON; the same as -o json.
        #[arg(long)]
        json: bool,
        /// Whose log.
        #[command(flatten)]
        target: Target,
    },
    /// Prove that nothing was changed, removed or put elsewhere; exit code 1 if something was, with the first entry.
    Verify {
        /// A head that was noted before: shows also whether the log was cut off, or written anew.
        #[arg(long)]
        head: Option<Head>,
        /// Where older files were taken away: the last entry in these.
        #[arg(long)]
        after: Option<Head>,
        /// The log's directory, if it is not in the state directory.
        #[arg(long)]
        directory: Option<PathBuf>,
        /// Whose log.
        #[command(flatten)]
        target: Target,
    },
    /// The last entry's number and hash, to be noted elsewhere.
    Head {
        /// Whose log.
        #[command(flatten)]
        target: Target,
    },
}

/// Runs one command.
///
/// # Errors
/// There is no log, or no gateway answers.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show { since, actor, action, limit, json, target } => {
            let filter = RawFilter { since, actor, action, limit: Some(limit) };
            let format = if json { output::Format::Json } else { target.output };
            let (lines, broken) = match &target.admin {
                Some(_) => (by_network(&target, &filter).await?, None),
                None => {
                    let filter = filter.check().map_err(anyhow::Error::msg)?;
                    let directory = target.state.join(DIRECTORY);
                    let (lines, broken) = log::read(&directory, &filter)
                        .with_context(|| format!("no audit log in {}", directory.display()))?;
                    (serde_json::to_value(lines)?, broken)
                }
            };
            show::print(format, &lines, show::audit);
            let Some(broken) = broken else { return Ok(ExitCode::SUCCESS) };
            output::complain(&format!("the log is not whole; what comes behind is not shown: {broken}"));
            Ok(ExitCode::from(1))
        }
        Command::Verify { head, after, directory, target } => {
            let directory = directory.unwrap_or_else(|| target.state.join(DIRECTORY));
            let after = after.unwrap_or_default();
            let prove = || {
                let proof = chain::verify(&directory, after, head, |_| {});
                proof.with_context(|| format!("no audit log in {}", directory.display()))
            };
            let mut proof = prove()?;
            if proof.is_err() {
                tokio::time::sleep(AGAIN).await;
                proof = prove()?;
            }
            let code = if proof.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) };
            show::print(target.output, &verdict(&proof), |_| in_words(&proof));
            Ok(code)
        }
        Command::Head { target } => {
            let head = match &target.admin {
                Some(_) => {
                    let standing = Client::of(&target)?.get("/audit/head", &[]).await?;
                    let field = |name: &str| standing.get(name).cloned().unwrap_or_default();
                    format!("{}:{}", field("seq"), field("hash").as_str().unwrap_or_default())
                }
                None => {
                    let directory = target.state.join(DIRECTORY);
                    let proof = chain::verify(&directory, Head::default(), None, |_| {});
                    match proof.with_context(|| format!("no audit log in {}", directory.display()))? {
                        Ok(proof) => proof.head.to_string(),
                        Err(broken) => bail!("the log is not whole: {broken}"),
                    }
                }
            };
            show::print(target.output, &json!({ "head": head }), |_| head.clone());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn by_network(target: &Target, filter: &RawFilter) -> anyhow::Result<Value> {
    let limit = filter.limit.map(|limit| limit.to_string());
    let query = [
        ("since", filter.since.as_deref()),
        ("actor", filter.actor.as_deref()),
        ("action", filter.action.as_deref()),
        ("limit", limit.as_deref()),
    ];
    let query: Vec<_> = query.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
    Client::of(target)?.get("/audit", &query).await
}

fn verdict(proof: &Result<Proof, Broken>) -> Value {
    match proof {
        Ok(Proof { entries, head, torn }) => json!({
            "whole": true,
            "entries": entries,
            "head": head.to_string(),
            "torn": torn.iter().map(|torn| json!({ "bytes": torn.bytes, "stated_by": torn.stated_by })).collect::<Value>(),
        }),
        Err(Broken { entry, place, what }) => {
            json!({ "whole": false, "entry": entry, "place": place, "what": what })
        }
    }
}

fn in_words(proof: &Result<Proof, Broken>) -> String {
    match proof {
        Ok(Proof { entries, head, torn }) => {
            let mut lines = vec![format!("whole: {entries} entries, head {head}")];
            lines.extend(torn.iter().map(|torn| {
                format!(
                    "before entry {} stand {} bytes that are none, as it states: a crash left them, or somebody changed \
                     the end while the gateway was down",
                    torn.stated_by, torn.bytes
                )
            }));
            lines.join("\n")
        }
        Err(broken) => format!("NOT WHOLE: {broken}"),
    }
}
