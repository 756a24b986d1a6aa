//! TLS, HTTP/2, waiting times and connections that wait, beside nginx in the same run.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use datasets::request::GeneratedRequest;
use tests::{
    client::{Client, Protocol},
    gateway::{Gateway, Settings},
    load::{self, median},
    nginx::Nginx,
    process::Process,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{MEASURED, ROUNDS};

/// Connections that wait.
const IDLE: usize = 10_000;

/// How long what waits is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Requests over TLS, with HTTP/1.1 and HTTP/2; the gateway in mode `off`.
pub(super) async fn secure(
    place: &Path,
    origin: SocketAddr,
    requests: &Arc<[GeneratedRequest]>,
    out: &mut impl Write,
) -> Result<()> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let roots = pair.cert.pem();
    let tls: (PathBuf, PathBuf) = (place.join("tls.pem"), place.join("tls.key"));
    fs::write(&tls.0, &roots)?;
    fs::write(&tls.1, pair.signing_key.serialize_pem())?;
    let nginx = Nginx::start_tls(&place.join("nginx-tls"), origin, &tls).await?;
    let mut settings = Settings::new(format!("http://{origin}"));
    settings.mode = "off";
    settings.tls = Some(tls);
    let gateway = Gateway::start(&place.join("tls"), &settings).await?;
    writeln!(out, "\n{:<26} {:>14} {:>14} {:>10}", "with TLS", "nginx, us", "gateway, us", "ratio")?;
    for (name, protocol) in [("HTTP/1.1", Protocol::Http1), ("HTTP/2", Protocol::Http2)] {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let peers = [(nginx.address(), nginx.process()), (gateway.address(), gateway.watch())];
            for (costs, (address, process)) in costs.iter_mut().zip(peers) {
                let http = Client::secure(address, &roots, protocol)?;
                costs.push(load::cost(&http, &[process], requests, MEASURED).await?);
            }
        }
        let [nginx, gateway] = costs.map(|costs| median(&costs));
        writeln!(out, "{name:<26} {nginx:>14.1} {gateway:>14.1} {:>10.2}", gateway / nginx)?;
    }
    Ok(())
}

/// Waiting times where half as many requests come as the slower of two can take.
pub(super) async fn waiting(
    proxies: &[(&str, SocketAddr)],
    requests: &Arc<[GeneratedRequest]>,
    out: &mut impl Write,
) -> Result<()> {
    let mut slowest = f64::INFINITY;
    for (_, address) in proxies {
        let sent = load::load(&Client::new(*address), requests, MEASURED).await?;
        slowest = slowest.min(sent as f64 / MEASURED.as_secs_f64());
    }
    let rate = slowest / 2.0;
    writeln!(out, "\n{:<26} {:>10} {:>10}", format!("{rate:.0} requests a second"), "p50, ms", "p99, ms")?;
    for (name, address) in proxies {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let took = load::paced(&Client::new(*address), requests, rate, MEASURED).await?;
            for (share, found) in [0.5, 0.99].into_iter().zip(&mut found) {
                found.extend(took.get((took.len() as f64 * share) as usize));
            }
        }
        let [half, most] = found.map(|found| median(&found));
        writeln!(out, "{name:<26} {half:>10.2} {most:>10.2}")?;
    }
    Ok(())
}

/// What kept connections cost that nothing comes by.
pub(super) async fn idle(proxies: &[(&str, SocketAddr, &Process)], out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "\n{:<26} {:>14} {:>14}",
        format!("{IDLE} kept connections"),
        "KiB for each",
        "CPU ms a second"
    )?;
    for (name, address, process) in proxies {
        let before = process.resident()?;
        let mut kept = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            kept.push(ask(*address).await?);
        }
        let each = process.resident()?.saturating_sub(before) as f64 / 1024.0 / IDLE as f64;
        let cpu = process.cpu()?;
        tokio::time::sleep(WATCHED).await;
        let busy = (process.cpu()? - cpu).as_secs_f64() * 1e3 / WATCHED.as_secs_f64();
        writeln!(out, "{name:<26} {each:>14.1} {busy:>14.1}")?;
    }
    Ok(())
}

/// A connection by which one request was answered.
async fn ask(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await.context("connecting once more")?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: shop.example\r\n\r\n").await?;
    let mut answer = [0; 2048];
    let read = stream.read(&mut answer).await?;
    ensure!(answer.get(..read).is_some_and(|text| text.starts_with(b"HTTP/1.1 200")), "no answer");
    Ok(stream)
}
