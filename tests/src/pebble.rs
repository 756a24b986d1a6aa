//! A real ACME server on loopback: `pebble`, with `pebble-challtestsrv` as the DNS server that sends every name to
//! 127.0.0.1.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::{ports, process::Process};

/// Key that [`Pebble`] knows by the identifier `kid-1`.
pub const BOUND_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Pebble {
    directory: PathBuf,
    port: u16,
    management: u16,
    authority: String,
    processes: Vec<Process>,
}

/// What a test wants of the server.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The port at which it looks for files (HTTP-01).
    pub http_port: u16,
    /// The port at which it looks by handshakes (TLS-ALPN-01).
    pub tls_port: u16,
    /// How many seconds its certificates live.
    pub seconds: u64,
    /// Whether accounts must be bound to one that it knows.
    pub is_binding: bool,
}

impl Pebble {
    /// Prepares a server that keeps its files below `directory`; it does not run yet.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn prepare(directory: &Path, wanted: Wanted) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let (port, management) = (ports::free()?, ports::free()?);
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&own, &issuer)?;
        fs::write(directory.join("ca.pem"), &authority)?;
        fs::write(directory.join("cert.pem"), certificate.pem())?;
        fs::write(directory.join("key.pem"), own.serialize_pem())?;
        let settings = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": directory.join("cert.pem"),
            "privateKey": directory.join("key.pem"),
            "httpPort": wanted.http_port,
            "tlsPort": wanted.tls_port,
            "externalAccountBindingRequired": wanted.is_binding,
            "externalAccountMACKeys": { "kid-1": BOUND_KEY },
            "certificateValidityPeriod": wanted.seconds,
        }});
        fs::write(directory.join("pebble.json"), settings.to_string())?;
        Ok(Self { directory: directory.to_owned(), port, management, authority, processes: Vec::new() })
    }

    /// Starts it.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub async fn start(&mut self) -> Result<()> {
        let needed = "pebble is needed (Debian: apt-get install pebble)";
        let dns = format!("127.0.0.1:{}", ports::free()?);
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-dns01", &dns]);
        names.args(["-management", &format!("127.0.0.1:{}", ports::free()?)]);
        self.processes.push(Process::spawn("names", &mut names, &self.directory).context(needed)?);
        let mut command = Command::new("pebble");
        command
            .args(["-strict=false", "-dnsserver", &dns, "-config"])
            .arg(self.directory.join("pebble.json"));
        // It would refuse good requests and wait at random: both are for tests of ACME libraries.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let mut process = Process::spawn("pebble", &mut command, &self.directory).context(needed)?;
        let (client, directory) = (self.client()?, self.directory_url());
        process
            .wait_until("serving its directory", Duration::from_secs(20), async || {
                client.get(&directory).send().await.is_ok_and(|answer| answer.status().is_success())
            })
            .await?;
        self.processes.push(process);
        Ok(())
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.processes.clear();
    }

    /// Where its directory is.
    pub fn directory_url(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// File with what vouches for the server itself.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The certificate (PEM) that vouches for those that it issues: another one after each start.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn root(&self) -> Result<Vec<u8>> {
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        Ok(self.client()?.get(url).send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    fn client(&self) -> Result<reqwest::Client> {
        // Another test may have installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(self.authority.as_bytes())?;
        Ok(reqwest::Client::builder().tls_certs_only([authority]).build()?)
    }
}
