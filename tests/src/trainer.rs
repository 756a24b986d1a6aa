//! A trainer as a real process.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::process::{Process, binary};

/// Where a trainer works.
#[derive(Debug, Clone)]
pub struct Workplace {
    /// The state directory, shared with the gateway.
    pub state: PathBuf,
    /// URL of a Redis server; the embedded store without.
    pub redis: Option<String>,
    /// Where its log goes.
    pub directory: PathBuf,
    /// What the environment holds beside what it does anyway.
    pub environment: Vec<(&'static str, String)>,
}

impl Workplace {
    /// A trainer beside the gateway whose state is `state`.
    pub fn new(directory: &Path, state: PathBuf, redis: Option<String>) -> Self {
        Self { state, redis, directory: directory.to_owned(), environment: Vec::new() }
    }

    /// Starts `trainer <arguments>`.
    ///
    /// # Errors
    /// It was not built.
    pub fn start(&self, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(binary("trainer")?);
        command.args(arguments).arg("--state").arg(&self.state);
        if let Some(url) = &self.redis {
            command.args(["--store", url]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::spawn("trainer", &mut command, &self.directory)
    }

    /// Runs `trainer <arguments>` to its end; returns whether it succeeded, and what it wrote.
    ///
    /// # Errors
    /// It was not built, or does not end within two minutes.
    pub async fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut process = self.start(arguments)?;
        let status = process.wait_exit(Duration::from_secs(120)).await?;
        Ok((status.success(), process.log()))
    }
}
