//! A `redis-server` of our own, which can be killed and started again with its data.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::{ports, process::Process};

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    directory: PathBuf,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a server that keeps its data below `directory` and syncs every write before it answers.
    ///
    /// # Errors
    /// `redis-server` is not installed, or does not answer.
    pub async fn start(directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut server = Self { port: ports::free()?, directory, process: None };
        server.restart().await?;
        Ok(server)
    }

    /// As the gateway's and the trainer's configuration want it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the server as `kill -9` does.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("redis-server does not run")?.kill()
    }

    /// Starts the server again on its port, with its data.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(&self.directory)
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        let mut process = Process::spawn("redis", &mut command, &self.directory)
            .context("redis-server is needed (Debian: apt-get install redis-server)")?;
        let client = redis::Client::open(self.url())?;
        process
            .wait_until("answering PING", Duration::from_secs(20), async || {
                match client.get_multiplexed_async_connection().await {
                    Ok(mut connection) => {
                        redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
                    }
                    Err(_) => false,
                }
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// A connection to it, to look at what is kept and to do what an operator does with `redis-cli`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connection(&self) -> Result<redis::aio::MultiplexedConnection> {
        Ok(redis::Client::open(self.url())?.get_multiplexed_async_connection().await?)
    }
}
