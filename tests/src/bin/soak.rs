//! What a gateway does over time: no request is lost to reloads and new certificates, and memory stays flat over a
//! thousand reloads and an hour of mixed load (the minutes are the one argument).

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use datasets::{benign, request::GeneratedRequest};
use tests::{
    asking::{Asking, Kept},
    client::Client,
    gateway::{Gateway, Settings},
    load,
    origin::Origin,
};

/// Reloads and certificate changes under traffic, and the requests that have to be answered meanwhile.
const RELOADS: u64 = 100;
const CERTIFICATES: u64 = 20;
const REQUESTS: u64 = 10_000;

/// Reloads over which memory has to stay flat, and after how many it is first looked at.
const MORE_RELOADS: u32 = 1_000;
const SETTLED: u32 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    // Fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let minutes: u64 =
        std::env::args().nth(1).map_or(Ok(60), |text| text.parse()).context("minutes, a whole number")?;
    let directory = tempfile::Builder::new().prefix("portcullis-soak-").tempdir()?;
    let origin = Origin::start(Duration::ZERO).await?;
    reloads(&directory.path().join("reloads"), &origin).await?;
    mixed_load(&directory.path().join("load"), &origin, Duration::from_secs(60 * minutes)).await
}

fn say(line: &str) {
    // A reader that has gone away is no failure.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What is kept in the certificate files, and every certificate that was ever in them.
struct Certificates {
    files: [std::path::PathBuf; 2],
    made: Vec<rcgen::CertifiedKey<rcgen::KeyPair>>,
}

impl Certificates {
    fn make(directory: &Path, count: u64) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let make = |_| Ok(rcgen::generate_simple_self_signed(["localhost".to_owned()])?);
        let made = (0..count).map(make).collect::<Result<_>>()?;
        Ok(Self { files: ["cert.pem", "key.pem"].map(|name| directory.join(name)), made })
    }

    fn install(&self, index: usize) -> Result<()> {
        let pair = self.made.get(index).context("no such certificate")?;
        let [certificate, key] = &self.files;
        fs::write(certificate, pair.cert.pem())?;
        fs::write(key, pair.signing_key.serialize_pem())?;
        Ok(())
    }
}

async fn reload(gateway: &Gateway) -> Result<()> {
    let (code, text) = gateway.command(&["reload"]).await?;
    ensure!(code == 0, "reload failed with {code}: {text}");
    Ok(())
}

async fn reloads(directory: &Path, origin: &Origin) -> Result<()> {
    let certificates = Certificates::make(directory, CERTIFICATES + 1)?;
    certificates.install(0)?;
    let mut settings = Settings::new(origin.url());
    let [certificate, key] = certificates.files.clone();
    settings.tls = Some((certificate, key));
    let gateway = Gateway::start(directory, &settings).await?;
    let url = format!("https://localhost:{}/api/products/1", gateway.address().port());
    let bundle: String = certificates.made.iter().map(|pair| pair.cert.pem()).collect();
    let asking = Asking::start(&url, Some(&bundle), Kept::Half, 8)?;
    for round in 0..RELOADS {
        if round % (RELOADS / CERTIFICATES) == 0 {
            certificates.install(usize::try_from(round / (RELOADS / CERTIFICATES))? + 1)?;
        }
        reload(&gateway).await?;
        asking.wait_asked(REQUESTS / RELOADS).await?;
    }
    let asked = asking.asked();
    let wrong = asking.end().await?;
    say(&format!(
        "{asked} requests during {RELOADS} reloads and {CERTIFICATES} new certificates: {} failures",
        wrong.len()
    ));
    ensure!(wrong.is_empty(), "{wrong:?}");

    let mut settled = 0;
    for round in 1..=MORE_RELOADS {
        reload(&gateway).await?;
        if round == SETTLED {
            settled = gateway.watch().resident()?;
        }
    }
    flat(&format!("{MORE_RELOADS} reloads"), settled, gateway.watch().resident()?)
}

async fn mixed_load(directory: &Path, origin: &Origin, time: Duration) -> Result<()> {
    let mut settings = Settings::new(origin.url());
    // A handful of addresses sends all of the load: as clients they would be blocked, and blocking is cheap.
    settings.waf = vec!["block_clients: off".to_owned()];
    let gateway = Gateway::start(directory, &settings).await?;
    say(&format!("idle: {:.1} MB resident", megabytes(gateway.watch().resident()?)));
    let requests: Arc<[GeneratedRequest]> =
        benign::population(3, 0, 200).into_iter().flat_map(|client| client.take(20)).collect();
    let http = Client::new(gateway.address());
    let started = Instant::now();
    load::load(&http, &requests, time / 10).await?;
    let settled = gateway.watch().resident()?;
    let mut answered = 0;
    while started.elapsed() < time {
        answered += load::load(&http, &requests, Duration::from_secs(5)).await?;
    }
    flat(
        &format!("{} minutes and {answered} requests of mixed load", time.as_secs() / 60),
        settled,
        gateway.watch().resident()?,
    )
}

fn flat(what: &str, before: u64, after: u64) -> Result<()> {
    let change = (after as f64 / before as f64 - 1.0) * 100.0;
    say(&format!("{what}: {:.1} -> {:.1} MB resident, {change:+.1} %", megabytes(before), megabytes(after)));
    ensure!(change < 5.0, "memory grew by {change:.1} %");
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
