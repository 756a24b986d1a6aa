//! `gateway run`, `check` and `schema`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    cli::{
        ModeName, Run, Target,
        client::{Client, Refused},
        output, show,
    },
    config::{self, Config, StoreConfig, diff},
    reload::ConfigSource,
};

/// Number of the signal that a write beyond the limit on file sizes raises; tokio has no name for it.
const SIGXFSZ: i32 = 25;

/// Runs a gateway until SIGTERM or SIGINT, and drains.
///
/// # Errors
/// It cannot start; the text says what to do.
pub async fn run(options: Run) -> anyhow::Result<ExitCode> {
    let config = match load(&options) {
        Ok(config) => config,
        Err(mistakes) => {
            output::complain(&mistakes);
            return Ok(ExitCode::from(2));
        }
    };
    let source = ConfigSource { file: options.config.clone(), load: Box::new(move || load(&options)) };
    let app = App::build(config, source).await?;
    output::complain(&app.greeting());
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Writing beyond a limit on file sizes is an error like a full disk, and no reason to end.
    let _file_size = signal(SignalKind::from_raw(SIGXFSZ))?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining; a second signal ends it at once");
        asked.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    app.run(shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// Checks a configuration file.
///
/// # Errors
/// The file cannot be read.
pub fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    match Config::load(&text, &path.display().to_string()) {
        Ok(config) => {
            for warning in &config.warnings {
                output::complain(&format!("warning: {warning}"));
            }
            output::say(&format!("{}: fine ({} routes)", path.display(), config.routes.len()));
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            output::complain(&mistakes.to_string());
            Ok(ExitCode::from(2))
        }
    }
}

/// Compares a configuration file with what a running gateway has in force; exit code 2 if they differ.
///
/// # Errors
/// The file cannot be read, or no gateway answers.
pub async fn diff(path: &Path, target: &Target) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let config = match Config::load(&text, &path.display().to_string()) {
        Ok(config) => config,
        Err(mistakes) => {
            output::complain(&mistakes.to_string());
            return Ok(ExitCode::from(2));
        }
    };
    let in_force = Client::of(target)?.get("/config", &[]).await?;
    let document = in_force.get("document").unwrap_or(&serde_json::Value::Null);
    let changes = diff::between(document, &config.document);
    show::print(target.output, &serde_json::to_value(&changes)?, show::changes);
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Lets a running gateway read its configuration again; exit code 1 if it refuses it.
///
/// # Errors
/// No gateway answers.
pub async fn reload(target: &Target) -> anyhow::Result<ExitCode> {
    let (outcome, code) = match Client::of(target)?.post("/config/reload", &serde_json::json!({})).await {
        Ok(outcome) => (outcome, ExitCode::SUCCESS),
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) if refused.problem.get("refused").is_some() => (refused.problem, ExitCode::from(1)),
            Ok(refused) => return Err(refused.into()),
            Err(error) => return Err(error),
        },
    };
    show::print(target.output, &outcome, show::reload);
    Ok(code)
}

/// The JSON Schema of the configuration file.
///
/// # Errors
/// It cannot be written as JSON.
pub fn schema() -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&config::schema())?)
}

/// The configuration of a run: the file or the quick form, then what the command line overrides. On mistakes their
/// text.
fn load(options: &Run) -> Result<Config, String> {
    let mut config = match (&options.config, &options.upstream) {
        (Some(path), None) => {
            if options.listen.is_some() || options.mode.is_some() {
                return Err("--listen and --mode go with --upstream; with --config write them into the file"
                    .to_owned());
            }
            let name = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
            Config::load(&text, &name).map_err(|mistakes| mistakes.to_string())?
        }
        (None, Some(upstream)) => {
            let mode = options.mode.map(|mode| match mode {
                ModeName::Off => "off",
                ModeName::Detect => "detect",
                ModeName::Block => "block",
            });
            let state = options.state.as_ref().map(|state| state.to_string_lossy());
            Config::quick(upstream, options.listen.as_deref(), mode, state.as_deref())
                .map_err(|mistakes| mistakes.to_string())?
        }
        (Some(_), Some(_)) => {
            return Err(
                "give --config or --upstream, not both (PORTCULLIS_CONFIG and PORTCULLIS_UPSTREAM count too)"
                    .to_owned(),
            );
        }
        (None, None) => {
            return Err("say what to protect: --upstream http://host:port, or --config FILE".to_owned());
        }
    };
    if let Some(state) = &options.state {
        config.state.clone_from(state);
    }
    if let Some(admin) = options.admin {
        config.admin.move_to(admin).map_err(|message| format!("--admin {message}"))?;
    }
    match options.store.as_deref() {
        None => {}
        Some("embedded") => config.store = StoreConfig::Embedded,
        Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => {
            config.store = StoreConfig::Redis(url.to_owned());
        }
        Some(other) => {
            return Err(format!("--store {other}: write `embedded` or redis://host:port/database"));
        }
    }
    Ok(config)
}
