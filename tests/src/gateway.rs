//! A gateway as a real process, and its command line.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    client::Client,
    ports,
    process::{Process, binary},
};

/// What a test wants of its gateway; the rest is as it comes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The origin's URL.
    pub upstream: String,
    /// `off`, `detect` or `block`.
    pub mode: &'static str,
    /// URL of a Redis server; the embedded store without.
    pub redis: Option<String>,
    /// Further keys of the `waf` section, one `key: value` each.
    pub waf: Vec<String>,
    /// Further keys of the route, one `key: value` each.
    pub route: Vec<String>,
    /// Certificate and key of the listener.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Further keys of the listener's `tls` section, one `key: value` each.
    pub tls_more: Vec<String>,
    /// The port of the listener; any free one without.
    pub port: Option<u16>,
    /// Further keys of the listener, one `key: value` each.
    pub listener: Vec<String>,
    /// Further keys of the `admin` section beside its listener, one `key: value` each.
    pub admin: Vec<String>,
    /// Further top-level keys, one `key: value` each.
    pub more: Vec<String>,
    /// What the environment holds beside what it does anyway.
    pub environment: Vec<(&'static str, String)>,
}

impl Settings {
    /// Mode `block` with the embedded store, in front of `upstream`.
    pub fn new(upstream: String) -> Self {
        Self {
            upstream,
            mode: "block",
            redis: None,
            waf: Vec::new(),
            route: Vec::new(),
            tls: None,
            tls_more: Vec::new(),
            port: None,
            listener: Vec::new(),
            admin: Vec::new(),
            more: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The configuration file's text.
    fn yaml(&self, directory: &Path, address: SocketAddr, admin: SocketAddr) -> String {
        let mut yaml = format!("version: 1\nstate: {}\n", directory.join("state").display());
        if self.admin.is_empty() {
            let _ = writeln!(yaml, "admin: {admin}");
        } else {
            let _ = writeln!(yaml, "admin:\n  listeners:\n    - address: {admin}");
        }
        for line in &self.admin {
            let _ = writeln!(yaml, "  {line}");
        }
        let _ = writeln!(
            yaml,
            "trusted_proxies: [127.0.0.1/32]\nlisteners:\n  - name: main\n    address: {address}"
        );
        if let Some((certificate, key)) = &self.tls {
            let _ = writeln!(
                yaml,
                "    tls:\n      certificate: {}\n      key: {}",
                certificate.display(),
                key.display()
            );
            for line in &self.tls_more {
                let _ = writeln!(yaml, "      {line}");
            }
        }
        for line in &self.listener {
            let _ = writeln!(yaml, "    {line}");
        }
        let _ = writeln!(
            yaml,
            "routes:\n  - name: shop\n    upstreams:\n      - url: {}\n    waf:\n      mode: {}",
            self.upstream, self.mode
        );
        for line in &self.route {
            let _ = writeln!(yaml, "    {line}");
        }
        if !self.waf.is_empty() {
            yaml.push_str("waf:\n");
        }
        for line in &self.waf {
            let _ = writeln!(yaml, "  {line}");
        }
        if let Some(url) = &self.redis {
            let _ = writeln!(yaml, "store:\n  redis: {url}");
        }
        for line in &self.more {
            let _ = writeln!(yaml, "{line}");
        }
        yaml
    }
}

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
}

impl Gateway {
    /// Starts a gateway whose configuration, state and log lie below `directory`, and waits until it is ready.
    ///
    /// # Errors
    /// It was not built, refuses its configuration, or is not ready within 20 seconds.
    pub async fn start(directory: &Path, settings: &Settings) -> Result<Self> {
        Self::launch(directory, settings, |address, admin| settings.yaml(directory, address, admin)).await
    }

    /// Starts a gateway with one plain listener whose routes, and all beside them, stand in `yaml`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(directory: &Path, yaml: &str) -> Result<Self> {
        let state = directory.join("state");
        let settings = Settings::new(String::new());
        Self::launch(directory, &settings, |address, admin| {
            format!(
                "version: 1\nstate: {}\nadmin: {admin}\ntrusted_proxies: [127.0.0.1/32]\n\
                 listeners: [{{name: main, address: \"{address}\"}}]\n{yaml}",
                state.display()
            )
        })
        .await
    }

    async fn launch(
        directory: &Path,
        settings: &Settings,
        yaml: impl FnOnce(SocketAddr, SocketAddr) -> String,
    ) -> Result<Self> {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let port = settings.port.map_or_else(ports::free, Ok)?;
        let (address, admin) = (loopback(port), loopback(ports::free()?));
        fs::create_dir_all(directory)?;
        fs::write(directory.join("portcullis.yaml"), yaml(address, admin))?;
        let mut command = Command::new(binary("gateway")?);
        command.args(["run", "--config"]).arg(directory.join("portcullis.yaml"));
        command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn("gateway", &mut command, directory)?;
        let mut gateway = Self { process, address, admin, directory: directory.to_owned() };
        gateway.wait_ready().await?;
        Ok(gateway)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let admin = Client::new(self.admin);
        self.process
            .wait_until("being ready", Duration::from_secs(20), async || {
                admin.get("/readyz").await.is_ok_and(|answer| answer.status.is_success())
            })
            .await
    }

    /// Where it takes traffic.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is administered beside its socket.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A client of its traffic listener.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The process, to look at.
    pub fn watch(&self) -> &Process {
        &self.process
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// All metrics, as Prometheus gets them.
    ///
    /// # Errors
    /// The admin listener does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let answer = Client::new(self.admin).get("/metrics").await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The value of a metric, summed over its labels; 0 if there is none yet.
    ///
    /// # Errors
    /// The admin listener does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let values = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Runs `gateway <arguments>` against this gateway; returns its exit code and what it printed.
    ///
    /// # Errors
    /// It does not start.
    pub async fn command(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let mut command = tokio::process::Command::new(binary("gateway")?);
        command.args(arguments).arg("--state").arg(self.state());
        let output = command.output().await.context("running the gateway's command line")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().unwrap_or(-1), text))
    }

    /// Runs `gateway <arguments> -o json` and reads what it prints.
    ///
    /// # Errors
    /// It fails, or prints something else than JSON.
    pub async fn list(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let (code, text) = self.command(&[arguments, &["-o", "json"]].concat()).await?;
        if code != 0 {
            bail!("gateway {} failed with {code}: {text}", arguments.join(" "));
        }
        serde_json::from_str(&text)
            .with_context(|| format!("gateway {} printed no JSON list: {text}", arguments.join(" ")))
    }

    /// The number of the model in force, if there is one.
    ///
    /// # Errors
    /// The admin listener does not answer.
    pub async fn model(&self) -> Result<Option<u64>> {
        let answer = Client::new(self.admin).get("/metrics").await?;
        let text = String::from_utf8_lossy(&answer.body);
        Ok(text.lines().find_map(|line| {
            let (seq, value) = line.strip_prefix("portcullis_model_info{seq=\"")?.split_once("\"} ")?;
            if value == "1" { seq.parse().ok() } else { None }
        }))
    }

    /// Waits until a model with number `seq` or a later one is in force, and returns its number.
    ///
    /// # Errors
    /// `timeout` passes.
    pub async fn wait_model(&self, seq: u64, timeout: Duration) -> Result<u64> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let now = self.model().await?;
            if let Some(now) = now.filter(|now| *now >= seq) {
                return Ok(now);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("after {timeout:?} the gateway has {now:?}, not model {seq}:\n{}", self.process.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a metric is at least `value`.
    ///
    /// # Errors
    /// `timeout` passes.
    pub async fn wait_metric(&self, name: &str, value: f64, timeout: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let now = self.metric(name).await?;
            if now >= value {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("after {timeout:?} {name} is {now}, not {value}:\n{}", self.process.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
