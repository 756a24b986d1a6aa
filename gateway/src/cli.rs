//! The command line: run a gateway, check its configuration, and talk to one that runs.

pub mod audit;
pub mod client;
pub mod hash;
pub mod inventory;
pub mod output;
pub mod rules;
pub mod run;
pub mod show;
pub mod trial;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::{client::Client, output::Format};

/// API gateway with the web application firewall inside.
#[derive(Debug, Parser)]
#[command(name = "gateway", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: with --upstream alone it protects at once, with --config as the file says.
    Run(Run),
    /// Check a configuration file and report every mistake.
    Check {
        /// The file.
        #[arg(long, env = "PORTCULLIS_CONFIG")]
        config: PathBuf,
    },
    /// What a configuration file would change in a running gateway; exit code 2 if anything.
    Diff {
        /// The file.
        #[arg(long, env = "PORTCULLIS_CONFIG")]
        config: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Let a running gateway read its configuration again, as SIGHUP and a changed file do.
    Reload {
        #[command(flatten)]
        target: Target,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Make API keys, and hashes of keys and passwords for the configuration.
    Hash {
        #[command(subcommand)]
        what: hash::Hash,
    },
    /// Blocked clients: list, why, release, confirm, add.
    Blocks {
        #[command(subcommand)]
        command: Blocks,
    },
    /// Addresses and networks that are never inspected nor blocked.
    Allow {
        #[command(subcommand)]
        command: Allow,
    },
    /// Models: list, show, promote, roll back.
    Models {
        #[command(subcommand)]
        command: Models,
    },
    /// Breakers: where one is open the model only reports; `gateway status` says why.
    Breaker {
        #[command(subcommand)]
        command: Breaker,
    },
    /// Why a request was flagged: rules, features, what they matched (masked).
    Explain {
        /// Request id, as sent to the client in X-Request-Id.
        request_id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Which endpoints there are, who calls them how; as OpenAPI, or compared with an OpenAPI file.
    Inventory(inventory::Inventory),
    /// Rules: list, show, and test them on a request.
    Rules {
        #[command(subcommand)]
        command: rules::Command,
    },
    /// Who changed what, and when: show the log, prove it whole.
    Audit {
        #[command(subcommand)]
        command: audit::Command,
    },
    /// What is in force: modes of each route, model, store.
    Status {
        #[command(flatten)]
        target: Target,
    },
}

/// How a gateway is run.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Configuration file.
    #[arg(long, env = "PORTCULLIS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Origin to protect, such as http://127.0.0.1:3000; needs no file.
    #[arg(long, env = "PORTCULLIS_UPSTREAM")]
    pub upstream: Option<String>,
    /// Address for clients; with --upstream. Default: all addresses, port 8080.
    #[arg(long, env = "PORTCULLIS_LISTEN")]
    pub listen: Option<String>,
    /// What detection may do; with --upstream. Default: block.
    #[arg(long, env = "PORTCULLIS_MODE")]
    pub mode: Option<ModeName>,
    /// State directory; beats the file.
    #[arg(long, env = "PORTCULLIS_STATE")]
    pub state: Option<PathBuf>,
    /// `embedded` or redis://host:port/database; beats the file.
    #[arg(long, env = "PORTCULLIS_STORE")]
    pub store: Option<String>,
    /// Local address for health and metrics; beats the file. Default: 127.0.0.1:9180.
    #[arg(long, env = "PORTCULLIS_ADMIN")]
    pub admin: Option<SocketAddr>,
}

/// A mode on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// Nothing is inspected.
    Off,
    /// Everything is inspected; no response changes.
    Detect,
    /// What is found is rejected.
    Block,
}

#[derive(Debug, Subcommand)]
enum Blocks {
    /// Every block in force.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// All fields of one client's blocks.
    Show(OneClient),
    /// Why a client is blocked, in words.
    Explain(OneClient),
    /// End a client's blocks and remember them as false positives; it is not blocked again for a while.
    Release(OneClient),
    /// Remember a client's blocks as justified.
    Confirm(OneClient),
    /// Block a client by hand.
    Add {
        /// Address, network in CIDR form, `consumer:NAME`, `key:HASH` or `session:HASH`.
        client: String,
        /// How long, such as 10m or 2h; without it until it is released.
        #[arg(long, value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
        /// Route name; default all.
        #[arg(long)]
        scope: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, clap::Args)]
struct OneClient {
    /// Address, network in CIDR form, `consumer:NAME`, `key:HASH` or `session:HASH`.
    client: String,
    /// Route name or `all`, if only that block is meant.
    #[arg(long)]
    scope: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Allow {
    /// Every entry, from the configuration and from run time.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Allow an address or network until it is removed.
    Add {
        /// Address or network in CIDR form.
        network: String,
        #[command(flatten)]
        target: Target,
    },
    /// Remove an entry that was added at run time.
    Remove {
        /// Address or network in CIDR form.
        network: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
enum Models {
    /// Every artifact that is kept.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// One artifact: where it comes from, what it promises.
    Show {
        /// Sequence number.
        seq: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Put an artifact in force.
    Promote {
        /// Sequence number.
        seq: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Go back to an older artifact; without a number to the one that was in force before.
    Rollback {
        /// Sequence number.
        seq: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
enum Breaker {
    /// Let the model act again.
    Reset {
        /// Route name; without it on every route.
        route: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

/// Which gateway is asked, and how the answer is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// State directory of the gateway.
    #[arg(long, env = "PORTCULLIS_STATE", default_value = "portcullis-state")]
    pub state: PathBuf,
    /// URL of an admin listener, or of a route that publishes the API, instead of the socket in the state directory.
    #[arg(long, env = "PORTCULLIS_ADMIN_URL", value_name = "URL")]
    pub admin: Option<String>,
    /// File with the token for it; without it PORTCULLIS_ADMIN_TOKEN.
    #[arg(long, env = "PORTCULLIS_ADMIN_TOKEN_FILE", value_name = "FILE", requires = "admin")]
    pub token_file: Option<PathBuf>,
    /// File with the certificates (PEM) that sign its certificate, where the system's do not.
    #[arg(long, env = "PORTCULLIS_ADMIN_CA", value_name = "FILE", requires = "admin")]
    pub admin_ca: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Runs one command; the exit code is 0 for fine, 1 for failure, 2 for wrong usage or mistakes found.
pub async fn main(cli: Cli) -> ExitCode {
    match dispatch(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("gateway: {error:#}"));
            ExitCode::from(1)
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => return run::run(options).await,
        Command::Check { config } => return run::check(&config),
        Command::Diff { config, target } => return run::diff(&config, &target).await,
        Command::Reload { target } => return run::reload(&target).await,
        Command::Schema => output::say(&run::schema()?),
        Command::Hash { what } => hash::run(&what)?,
        Command::Inventory(options) => return inventory::run(options).await,
        Command::Rules { command } => return rules::run(command),
        Command::Audit { command } => return audit::run(command).await,
        Command::Blocks { command } => blocks(command).await?,
        Command::Allow { command } => allow(command).await?,
        Command::Models { command } => models(command).await?,
        Command::Breaker { command: Breaker::Reset { route, target } } => {
            let order = json!({ "route": route });
            let answer = Client::of(&target)?.post("/breaker/reset", &order).await?;
            show::print(target.output, &answer, show::breakers);
        }
        Command::Explain { request_id, target } => {
            let answer = Client::of(&target)?.get("/explain", &[("request_id", &request_id)]).await?;
            show::print(target.output, &answer, show::explanation);
        }
        Command::Status { target } => {
            let answer = Client::of(&target)?.get("/status", &[]).await?;
            show::print(target.output, &answer, show::status);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn blocks(command: Blocks) -> anyhow::Result<()> {
    match command {
        Blocks::List { target } => {
            let answer = Client::of(&target)?.get("/blocks", &[]).await?;
            show::print(target.output, &answer, show::blocks);
        }
        Blocks::Show(one) => show::print(one.target.output, &find(&one).await?, show::fields),
        Blocks::Explain(one) => show::print(one.target.output, &find(&one).await?, show::block_explanations),
        Blocks::Release(one) => {
            let answer = order(&one, "/blocks/release").await?;
            show::print(one.target.output, &answer, |answer| show::done(answer, "released"));
        }
        Blocks::Confirm(one) => {
            let answer = order(&one, "/blocks/confirm").await?;
            show::print(one.target.output, &answer, |answer| show::done(answer, "confirmed"));
        }
        Blocks::Add { client, ttl, reason, scope, target } => {
            let order = json!({
                "client": client,
                "scope": scope,
                "reason": reason,
                "ttl_seconds": ttl.map(|ttl| ttl.as_secs()),
            });
            let answer = Client::of(&target)?.post("/blocks", &order).await?;
            show::print(target.output, &json!([answer]), |answer| show::done(answer, "blocked"));
        }
    }
    Ok(())
}

async fn find(one: &OneClient) -> anyhow::Result<Value> {
    let mut query = vec![("client", one.client.as_str())];
    query.extend(one.scope.as_deref().map(|scope| ("scope", scope)));
    Client::of(&one.target)?.get("/blocks/show", &query).await
}

async fn order(one: &OneClient, path: &str) -> anyhow::Result<Value> {
    Client::of(&one.target)?.post(path, &json!({ "client": one.client, "scope": one.scope })).await
}

async fn allow(command: Allow) -> anyhow::Result<()> {
    let (network, allowed, target) = match command {
        Allow::List { target } => {
            let answer = Client::of(&target)?.get("/allow", &[]).await?;
            show::print(target.output, &answer, show::allowed);
            return Ok(());
        }
        Allow::Add { network, target } => (network, true, target),
        Allow::Remove { network, target } => (network, false, target),
    };
    let order = json!({ "network": network, "allowed": allowed });
    let answer = Client::of(&target)?.post("/allow", &order).await?;
    show::print(target.output, &json!([answer]), show::allowed);
    Ok(())
}

async fn models(command: Models) -> anyhow::Result<()> {
    let (seq, target) = match command {
        Models::List { target } => {
            let answer = Client::of(&target)?.get("/models", &[]).await?;
            show::print(target.output, &answer, show::models);
            return Ok(());
        }
        Models::Show { seq, target } => {
            let answer = Client::of(&target)?.get("/models/show", &[("seq", &seq.to_string())]).await?;
            show::print(target.output, &json!([answer]), show::fields);
            return Ok(());
        }
        Models::Promote { seq, target } => (seq, target),
        Models::Rollback { seq: Some(seq), target } => (seq, target),
        Models::Rollback { seq: None, target } => {
            let answer = Client::of(&target)?.post("/models/rollback", &json!({})).await?;
            show::print(target.output, &json!([answer]), show::models);
            return Ok(());
        }
    };
    let answer = Client::of(&target)?.post("/models/current", &json!({ "seq": seq })).await?;
    show::print(target.output, &json!([answer]), show::models);
    Ok(())
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
    fn commands_of_the_documentation_parse() {
        for line in [
            "gateway run --upstream http://127.0.0.1:3000 --listen 127.0.0.1:0 --mode detect --state s --store redis://h",
            "gateway run --config portcullis.yaml",
            "gateway check --config portcullis.yaml",
            "gateway schema",
            "gateway hash key",
            "gateway hash key --stdin",
            "gateway hash password",
            "gateway diff --config portcullis.yaml --state s",
            "gateway reload -o json",
            "gateway blocks list -o json --state s",
            "gateway blocks show 1.2.3.4",
            "gateway blocks explain ip:1.2.3.4",
            "gateway blocks release 1.2.3.4 --scope all",
            "gateway blocks confirm 1.2.3.4",
            "gateway blocks add 10.0.0.0/8 --ttl 10m --reason noise",
            "gateway allow list",
            "gateway allow add 192.0.2.0/24",
            "gateway allow remove 192.0.2.0/24",
            "gateway models list",
            "gateway models show 3",
            "gateway models promote 3",
            "gateway models rollback",
            "gateway breaker reset",
            "gateway breaker reset api -o json",
            "gateway explain 0190",
            "gateway status",
            "gateway status --admin https://gw.example:9443 --token-file t --admin-ca ca.pem",
            "gateway audit show --since 2026-11-24T18:00:00Z --actor uid:0 --action block --json",
            "gateway audit verify --state s",
            "gateway audit verify --head 0:0000000000000000000000000000000000000000000000000000000000000000",
            "gateway audit head -o json",
            "gateway rules list -o json --config portcullis.yaml --route api",
            "gateway inventory --route shop --json --state s",
            "gateway inventory --openapi",
            "gateway inventory --compare api.yaml --base /v2 -o json",
            "gateway rules show 1000200",
            "gateway rules test --url /?q=1 -X PUT -H a:b -d body",
            "gateway rules test --config portcullis.yaml --route api --request file",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Cli::try_parse_from(["gateway", "run", "--mode", "loud"]).is_err());
        assert!(Cli::try_parse_from(["gateway", "rules", "test"]).is_err());
        assert!(Cli::try_parse_from("gateway rules test --url / --request file".split(' ')).is_err());
    }
}
