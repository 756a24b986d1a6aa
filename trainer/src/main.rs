//! `trainer`: takes events into the lake, learns models from them, and publishes those that pass the gates.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;

fn main() -> ExitCode {
    let cli = trainer::cli::Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("PORTCULLIS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        // Complaining about a log that cannot be written panics where it cannot be written either.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match cli.run(&mut std::io::stdout().lock()) {
        Ok(code) => code,
        // Whoever read standard output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to report that standard error is closed.
            let _ = writeln!(std::io::stderr(), "trainer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
