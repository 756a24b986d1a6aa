//! nginx in front of an origin, as the measure of things; also with ModSecurity.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use tokio::net::TcpStream;

use crate::{ports, process::Process};

/// A running nginx; killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
}

impl Nginx {
    /// Starts it in one process, whose CPU time is then all of it, with its files below `place`. With
    /// `modsecurity`, the path of a file of rules, these are in force.
    ///
    /// # Errors
    /// It is not installed, or does not answer within 20 seconds.
    pub async fn start(place: &Path, origin: SocketAddr, modsecurity: Option<&Path>) -> Result<Self> {
        Self::launch(place, origin, modsecurity, None).await
    }

    /// The same with TLS (certificate and key, PEM files), and HTTP/2 for whoever asks for it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_tls(place: &Path, origin: SocketAddr, tls: &(PathBuf, PathBuf)) -> Result<Self> {
        Self::launch(place, origin, None, Some(tls)).await
    }

    async fn launch(
        place: &Path,
        origin: SocketAddr,
        modsecurity: Option<&Path>,
        tls: Option<&(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        fs::create_dir_all(place)?;
        let config = place.join("nginx.conf");
        fs::write(&config, configuration(place, address, origin, modsecurity, tls))?;
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.is_file());
        let program = program.unwrap_or_else(|| PathBuf::from("nginx"));
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).arg("-e").arg(place.join("start.log"));
        let mut process = Process::spawn("nginx", &mut command, place)?;
        process
            .wait_until("listening", Duration::from_secs(20), async || {
                TcpStream::connect(address).await.is_ok()
            })
            .await?;
        Ok(Self { process, address })
    }

    /// Where it takes traffic.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn configuration(
    place: &Path,
    address: SocketAddr,
    origin: SocketAddr,
    modsecurity: Option<&Path>,
    tls: Option<&(PathBuf, PathBuf)>,
) -> String {
    let place = place.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {place}/{kind}; "))
        .collect();
    let (load, rules) = match modsecurity {
        Some(rules) => (
            "load_module /usr/lib/nginx/modules/ngx_http_modsecurity_module.so;\n",
            format!("modsecurity on; modsecurity_rules_file {};", rules.display()),
        ),
        None => ("", String::new()),
    };
    let (kind, tls) = match tls {
        Some((certificate, key)) => (
            "ssl http2 ",
            format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display()),
        ),
        None => ("", String::new()),
    };
    format!(
        "{load}daemon off; master_process off; worker_processes 1; pid {place}/pid; error_log {place}/error.log crit;\n\
         events {{ worker_connections 16384;  }}\n\
         http {{ access_log off; {temporary} keepalive_requests 10000000; client_body_buffer_size 64k; \
         client_max_body_size 0; {rules}\n\
         upstream o {{ server {origin}; keepalive 64; keepalive_requests 10000000; }}\n\
         server {{ listen {address} {kind}backlog=1024; {tls} location / {{ proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_pass http://o; }} }} }}\n"
    )
}
