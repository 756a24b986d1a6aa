//! CPU time that one request costs in the gateway, beside nginx as a plain proxy in the same run.
//!
//! CPU time holds when the machine is noisy; requests a second do not. Absolute figures move with the machine, so
//! the ratio to nginx is the one to quote.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use datasets::{benign, request::GeneratedRequest};
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    ports,
    process::{Process, binary},
    teacher::{self, Teacher},
};

/// Connections kept busy.
const CONNECTIONS: usize = 32;

/// Rounds, each measuring every proxy once, in turn: what disturbs the machine disturbs all of them.
const ROUNDS: usize = 3;

/// How long one proxy is measured in one round.
const MEASURED: Duration = Duration::from_secs(6);

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::Builder::new().prefix("portcullis-bench-").tempdir()?;
    let place = directory.path();
    let shop_address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
    let mut shop =
        Process::spawn("shop", Command::new(binary("shop")?).arg(shop_address.to_string()), place)?;
    let direct = Client::new(shop_address);
    shop.wait_until("answering", Duration::from_secs(10), async || direct.get("/healthz").await.is_ok())
        .await?;

    let nginx = nginx(place, shop_address).await?;
    let mut settings = Settings::new(format!("http://{shop_address}"));
    // A handful of addresses sends all of the load: as clients they would be blocked, and blocking is cheap.
    settings.waf = vec!["block_clients: off".to_owned()];
    settings.mode = "off";
    let mut proxy_only = Gateway::start(&place.join("off"), &settings).await?;
    settings.mode = "block";
    let mut rules = Gateway::start(&place.join("rules"), &settings).await?;
    let everything_at = place.join("everything");
    let teacher = Teacher::new(1)?;
    teacher.install_keys(&everything_at.join("state"))?;
    teacher::publish(&everything_at.join("state"), 1, &teacher.artifact(&teacher.model(1)?)?)?;
    let mut everything = Gateway::start(&everything_at, &settings).await?;
    everything.wait_model(1, Duration::from_secs(10)).await?;

    let (off_at, rules_at, all_at) = (proxy_only.address(), rules.address(), everything.address());
    let proxies: [(&str, SocketAddr, &[&Process]); 4] = [
        ("nginx, plain proxy", nginx.address, &[&nginx.process]),
        ("gateway, mode off", off_at, &[proxy_only.process()]),
        ("gateway, rules", rules_at, &[rules.process()]),
        ("gateway, rules and model", all_at, &[everything.process()]),
    ];
    let requests: Arc<[GeneratedRequest]> =
        benign::population(1, 0, 200).into_iter().flat_map(|client| client.take(20)).collect();
    let mut costs = vec![Vec::new(); proxies.len()];
    for _ in 0..ROUNDS {
        for (costs, (_, address, processes)) in costs.iter_mut().zip(&proxies) {
            costs.push(measure(*address, processes, &requests).await?);
        }
    }

    let median = |costs: &[f64]| {
        let mut sorted = costs.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let plain = costs.first().map_or(f64::NAN, |costs| median(costs));
    let mut out = io::stdout().lock();
    writeln!(out, "{:<26} {:>14} {:>10}", "proxy", "CPU us/request", "x nginx")?;
    for ((name, ..), costs) in proxies.iter().zip(&costs) {
        writeln!(out, "{name:<26} {:>14.1} {:>10.2}", median(costs), median(costs) / plain)?;
    }
    writeln!(
        out,
        "medians of {ROUNDS} rounds of {MEASURED:?}, {CONNECTIONS} connections, the shop's benign traffic; \
         the gateway writes its access log, nginx none"
    )?;
    Ok(())
}

/// CPU microseconds of `processes` for each request through `address`.
async fn measure(
    address: SocketAddr,
    processes: &[&Process],
    requests: &Arc<[GeneratedRequest]>,
) -> Result<f64> {
    let cpu = || -> Result<Duration> { processes.iter().map(|process| process.cpu()).sum() };
    let http = Client::new(address);
    load(&http, requests, Duration::from_secs(1)).await?;
    let before = cpu()?;
    let sent = load(&http, requests, MEASURED).await?;
    let used = cpu()? - before;
    Ok(used.as_secs_f64() * 1e6 / sent as f64)
}

/// Keeps every connection busy for `time`; how many requests were answered.
async fn load(http: &Client, requests: &Arc<[GeneratedRequest]>, time: Duration) -> Result<u64> {
    let (next, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (http, requests, next) = (http.clone(), requests.clone(), next.clone());
            let (refused, stop) = (refused.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize % requests.len();
                    let Some(request) = requests.get(at) else { break };
                    let answer = http.send(request).await?;
                    ensure!(
                        !answer.status.is_server_error(),
                        "{} {}: {}",
                        request.method,
                        request.uri,
                        answer.status
                    );
                    refused.fetch_add(u64::from(answer.status == 403), Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    tokio::time::sleep(time.saturating_sub(started.elapsed())).await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.context("a worker of the load")??;
    }
    let (sent, refused) = (next.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    // What is refused is not forwarded, and would make the figure look better than it is.
    ensure!(
        refused * 100 <= sent,
        "{refused} of {sent} benign requests were refused: this measures refusing"
    );
    Ok(sent)
}

/// A running nginx.
struct Nginx {
    process: Process,
    address: SocketAddr,
}

/// nginx as a plain proxy in one process, whose CPU time is then all of it.
async fn nginx(place: &Path, origin: SocketAddr) -> Result<Nginx> {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
    let config = place.join("nginx.conf");
    let scratch = place.join("nginx");
    fs::create_dir_all(&scratch)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind}; ", scratch.display()))
        .collect();
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; worker_processes 1; pid {0}/pid; error_log {0}/error.log crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; {temporary} keepalive_requests 10000000; client_body_buffer_size 64k;\n\
             upstream o {{ server {origin}; keepalive 64; keepalive_requests 10000000; }}\n\
             server {{ listen {address} backlog=1024; location / {{ proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_pass http://o; }} }} }}\n",
            scratch.display()
        ),
    )?;
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file());
    let program = program.unwrap_or_else(|| PathBuf::from("nginx"));
    let mut process = Process::spawn(
        "nginx",
        Command::new(program).arg("-c").arg(&config).arg("-e").arg(scratch.join("start.log")),
        place,
    )?;
    let http = Client::new(address);
    process
        .wait_until("answering", Duration::from_secs(10), async || http.get("/healthz").await.is_ok())
        .await?;
    Ok(Nginx { process, address })
}
