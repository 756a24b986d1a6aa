//! `gateway inventory`: which endpoints there are, as a table, as JSON, as an OpenAPI document; and how that compares with
//! a document of the API.

mod compare;
mod export;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::{
        Target,
        client::Client,
        output::{Format, say, table},
        show,
    },
    openapi::document::Document,
};

/// What is asked of the inventory.
#[derive(Debug, clap::Args)]
pub struct Inventory {
    /// Only endpoints of this route.
    #[arg(long)]
    route: Option<String>,
    /// Print JSON; the same as `-o json`.
    #[arg(long)]
    json: bool,
    /// Print an OpenAPI 3.1 document of what was seen: paths, methods, names of parameters, no values.
    #[arg(long, conflicts_with_all = ["compare", "json"])]
    openapi: bool,
    /// Compare with an OpenAPI 3 file, YAML or JSON; exit code 2 if something is undocumented, unused, or deprecated and
    /// still called.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// The path below which the paths of that file are (default: that of its first server).
    #[arg(long, requires = "compare")]
    base: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// One endpoint, as the admin socket lists it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawListed {
    route: String,
    method: String,
    path: String,
    first_seen: String,
    last_seen: String,
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    clients: u64,
    consumers: BTreeMap<String, u64>,
    other_consumers: u64,
    auth: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
    request_types: BTreeMap<String, u64>,
    response_types: BTreeMap<String, u64>,
    learned: u64,
    parameters: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Runs the command.
///
/// # Errors
/// No gateway answers, or the file to compare with cannot be used.
pub async fn run(options: Inventory) -> anyhow::Result<ExitCode> {
    let query: Vec<(&str, &str)> =
        options.route.as_deref().map(|route| ("route", route)).into_iter().collect();
    let answer = Client::of(&options.target)?.get("/inventory", &query).await?;
    let listed: Vec<RawListed> = serde_json::from_value(answer.clone()).context("the gateway's answer")?;
    let format = if options.json { Format::Json } else { options.target.output };
    if options.openapi {
        say(&serde_json::to_string_pretty(&export::document(&listed))?);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(file) = &options.compare else {
        show::print(format, &answer, |_| endpoints(&listed));
        return Ok(ExitCode::SUCCESS);
    };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    let document = Document::read(&text, &name).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
    let base =
        document.base(options.base.as_deref()).map_err(|message| anyhow::anyhow!("{name}: {message}"))?;
    let documented = document.operations(&base);
    let differences = compare::differences(&documented, &listed);
    let shown = Value::from(differences.iter().map(compare::Difference::to_json).collect::<Vec<_>>());
    show::print(format, &shown, |_| compare::table_of(&differences));
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The endpoints as a table.
fn endpoints(listed: &[RawListed]) -> String {
    if listed.is_empty() {
        return "no endpoint was seen yet".to_owned();
    }
    let rows: Vec<_> = listed
        .iter()
        .map(|one| {
            vec![
                one.route.clone(),
                one.method.clone(),
                one.path.clone(),
                one.requests.to_string(),
                percent(one.client_errors, one.requests),
                percent(one.server_errors, one.requests),
                one.clients.to_string(),
                callers(one),
                names(&one.auth),
                day(&one.first_seen),
                minute(&one.last_seen),
            ]
        })
        .collect();
    table(
        &[
            "ROUTE",
            "METHOD",
            "PATH",
            "REQUESTS",
            "4XX",
            "5XX",
            "CLIENTS",
            "CONSUMERS",
            "AUTH",
            "SINCE",
            "LAST",
        ],
        &rows,
    )
}

fn percent(part: u64, whole: u64) -> String {
    match part {
        0 => "0 %".to_owned(),
        part => format!("{:.1} %", part as f64 / whole.max(1) as f64 * 100.0),
    }
}

/// The consumers that call most.
fn callers(one: &RawListed) -> String {
    const NAMED: usize = 3;
    let mut consumers: Vec<_> = one.consumers.iter().collect();
    consumers.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    let more = consumers.len() > NAMED || one.other_consumers > 0;
    let mut shown: Vec<&str> = consumers.iter().take(NAMED).map(|(name, _)| name.as_str()).collect();
    if more {
        shown.push("...");
    }
    if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
}

fn names(counts: &BTreeMap<String, u64>) -> String {
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn day(text: &str) -> String {
    text.get(..10).unwrap_or(text).to_owned()
}

fn minute(text: &str) -> String {
    text.get(..16).unwrap_or(text).replace('T', " ")
}
