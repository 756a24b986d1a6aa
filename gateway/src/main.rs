//! `gateway`: arguments, logging, and the command that was asked for.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use gateway::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged where `PORTCULLIS_LOG` says nothing. The TLS library warns of what any client can do.
const FILTER: &str = "info,rustls=error";

#[tokio::main]
async fn main() -> ExitCode {
    // Before anything may speak TLS: the stores do too. Fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = EnvFilter::try_from_env("PORTCULLIS_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    // Standard output belongs to the access log.
    tracing_subscriber::fmt()
        // Complaining about a log that cannot be written panics where it cannot be written either.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    cli::main(Cli::parse()).await
}
