//! `gateway rules`: which rules are in force, what one says, and what they make of a request.

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use waf_model::rules::RuleInfo;

use crate::{
    cli::{
        output::{Format, complain},
        show,
        trial::{self, Trial},
    },
    config::{Config, Route},
    rules::{Rules, text},
};

/// What `gateway rules` is asked.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Every rule in force.
    List {
        #[command(flatten)]
        place: Place,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// One rule: its text, what it is for, and the weakness that it guards.
    Show {
        /// The rule's id.
        id: u32,
        #[command(flatten)]
        place: Place,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// What the rules make of one request, and of its response if one is given. Exit code 0: it passes; 2: it would be rejected.
    Test {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        trial: Trial,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

/// Whose rules.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// Configuration file; without it the built-in rules as they come.
    #[arg(long, env = "PORTCULLIS_CONFIG")]
    config: Option<PathBuf>,
    /// Route of the file; without it the first.
    #[arg(long)]
    route: Option<String>,
}

impl Place {
    /// The configuration and the route; `Err` holds the mistakes of the file.
    fn load(&self) -> anyhow::Result<Result<(Config, Arc<Route>), String>> {
        let config = match &self.config {
            Some(path) => {
                let name = path.display().to_string();
                let text = fs::read_to_string(path).with_context(|| name.clone())?;
                Config::load(&text, &name)
            }
            // The origin is never asked.
            None => Config::quick("http://127.0.0.1:1", None, None, None),
        };
        let config = match config {
            Ok(config) => config,
            Err(mistakes) => return Ok(Err(mistakes.to_string())),
        };
        let wanted = |route: &&Arc<Route>| self.route.as_ref().is_none_or(|name| *name == route.name);
        let Some(route) = config.routes.iter().find(wanted).cloned() else {
            let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
            let name = self.route.as_deref().unwrap_or_default();
            return Ok(Err(format!("there is no route {name:?}; there are: {}", names.join(", "))));
        };
        Ok(Ok((config, route)))
    }
}

/// Runs one of the commands.
///
/// # Errors
/// A file cannot be read, or there is no such rule.
pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let (Command::List { place, .. } | Command::Show { place, .. } | Command::Test { place, .. }) = &command;
    let (config, route) = match place.load()? {
        Ok(found) => found,
        Err(mistakes) => {
            complain(&mistakes);
            return Ok(ExitCode::from(2));
        }
    };
    match command {
        Command::List { output, .. } => {
            show::print(output, &list(&route.rules), show_list);
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id, output, .. } => {
            show::print(output, &one(&route.rules, id)?, show_one);
            Ok(ExitCode::SUCCESS)
        }
        Command::Test { trial, output, .. } => {
            let request = trial.request(&config.limits)?;
            let outcome = trial::run(&route, request);
            show::print(output, &outcome, trial::show);
            let passes = outcome.get("verdict").and_then(Value::as_str) == Some(trial::PASSES);
            Ok(if passes { ExitCode::SUCCESS } else { ExitCode::from(2) })
        }
    }
}

fn list(rules: &Rules) -> Value {
    rules.set.rules().map(|rule| summary(&rule)).collect()
}

fn summary(rule: &RuleInfo<'_>) -> Value {
    json!({
        "id": rule.id,
        "severity": rule.severity,
        "paranoia": rule.paranoia,
        "phase": rule.phase,
        "tags": rule.tags,
        "message": rule.message,
        "place": format!("{}:{}", rule.file, rule.line),
    })
}

fn one(rules: &Rules, id: u32) -> anyhow::Result<Value> {
    let Some(rule) = rules.set.rules().find(|rule| rule.id == id) else {
        bail!(
            "rule {id} is not in force here; see `gateway rules list`, and name the place with --config and --route"
        );
    };
    let mut found = summary(&rule);
    if let Some(members) = found.as_object_mut() {
        members.insert("description".to_owned(), rule.description.into());
        members.insert("weaknesses".to_owned(), weaknesses(rule.tags).into());
        let text = text::of(rule.file, rule.line).map_err(anyhow::Error::msg)?;
        members.insert("text".to_owned(), text.into());
    }
    Ok(found)
}

/// Where the weaknesses and attack patterns that `tags` name are described: `CWE-89`, `CAPEC-66`, and the path of
/// the Core Rule Set, `capec/1000/152/248/66`.
fn weaknesses(tags: &[String]) -> Vec<String> {
    let page = |tag: &String| {
        let tag = tag.to_ascii_lowercase();
        let (list, number) = match (tag.split_once('-'), tag.rsplit_once('/')) {
            (Some((list @ ("cwe" | "capec"), number)), _) => (list, number),
            (_, Some((path, number))) if path.starts_with("capec") => ("capec", number),
            _ => return None,
        };
        let number: u32 = number.parse().ok()?;
        Some(format!("https://{list}.mitre.org/data/definitions/{number}.html"))
    };
    tags.iter().filter_map(page).collect()
}

fn show_list(answer: &Value) -> String {
    let rows: Vec<_> = show::items(answer)
        .map(|rule| {
            let tags: Vec<String> =
                rule.get("tags").map(show::items).into_iter().flatten().map(show::plain).collect();
            vec![
                show::text(rule, "id"),
                show::text(rule, "severity"),
                show::text(rule, "paranoia"),
                show::text(rule, "phase"),
                show::text(rule, "place"),
                show::text(rule, "message"),
                tags.join(" "),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no rule is in force here".to_owned();
    }
    super::output::table(&["ID", "SEVERITY", "PARANOIA", "PHASE", "PLACE", "MESSAGE", "TAGS"], &rows)
}

fn show_one(rule: &Value) -> String {
    let mut lines = vec![
        format!("rule      {}  {}", show::text(rule, "id"), show::text(rule, "message")),
        format!(
            "severity  {}, phase {}, paranoia level {}",
            show::text(rule, "severity"),
            show::text(rule, "phase"),
            show::text(rule, "paranoia")
        ),
        format!("place     {}", show::text(rule, "place")),
    ];
    let tags: Vec<String> =
        rule.get("tags").map(show::items).into_iter().flatten().map(show::plain).collect();
    lines.push(format!("tags      {}", tags.join(", ")));
    if !show::text(rule, "description").is_empty() {
        lines.push(format!("about     {}", show::text(rule, "description")));
    }
    for page in rule.get("weaknesses").map(show::items).into_iter().flatten() {
        lines.push(format!("weakness  {}", show::plain(page)));
    }
    lines.push(String::new());
    lines.push(show::text(rule, "text"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_lead_to_the_weakness() {
        let tags = ["attack-sqli", "CWE-89", "capec/1000/152/248/66", "CAPEC-7", "paranoia-level/1", "CWE-x"];
        assert_eq!(
            weaknesses(&tags.map(str::to_owned)),
            [
                "https://cwe.mitre.org/data/definitions/89.html",
                "https://capec.mitre.org/data/definitions/66.html",
                "https://capec.mitre.org/data/definitions/7.html",
            ]
        );
    }

    #[test]
    fn a_built_in_rule_is_shown_with_its_text() {
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let rules = &config.routes[0].rules;
        let listed = list(rules);
        let first = show::items(&listed).next().unwrap();
        let id = u32::try_from(first["id"].as_u64().unwrap()).unwrap();
        let shown = show_one(&one(rules, id).unwrap());
        assert!(shown.contains(&format!("id:{id},")) && shown.contains("SecRule"), "{shown}");
        assert!(show_list(&listed).lines().count() > 50);
        assert!(one(rules, 1).unwrap_err().to_string().contains("not in force"));
    }
}
