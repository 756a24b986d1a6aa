//! CPU time that one request costs in the gateway, beside nginx as a plain proxy in the same run; also with TLS, how long
//! clients wait, and what waiting connections cost.
//!
//! CPU time holds when the machine is noisy; requests a second do not. Absolute figures move with the machine, so
//! the ratio to nginx is the one to quote.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::Command,
    sync::Arc,
    time::Duration,
};

mod transport;

use anyhow::Result;
use datasets::{benign, request::GeneratedRequest};
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    load::{self, CONNECTIONS, median},
    nginx::Nginx,
    ports,
    process::{Process, binary},
    teacher::{self, Teacher},
};

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

    let nginx = Nginx::start(&place.join("nginx"), shop_address, None).await?;
    let mut settings = Settings::new(format!("http://{shop_address}"));
    // A handful of addresses sends all of the load: as clients they would be blocked, and blocking is cheap.
    settings.waf = vec!["block_clients: off".to_owned()];
    // A client would be told apart from the others, and one address holds all connections here.
    settings.more = vec!["limits: {connections: 20000, connections_per_address: 20000}".to_owned()];
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
        ("nginx, plain proxy", nginx.address(), &[nginx.process()]),
        ("gateway, mode off", off_at, &[proxy_only.process()]),
        ("gateway, rules", rules_at, &[rules.process()]),
        ("gateway, rules and model", all_at, &[everything.process()]),
    ];
    let requests: Arc<[GeneratedRequest]> =
        benign::population(1, 0, 200).into_iter().flat_map(|client| client.take(20)).collect();
    let mut costs = vec![Vec::new(); proxies.len()];
    for _ in 0..ROUNDS {
        for (costs, (_, address, processes)) in costs.iter_mut().zip(&proxies) {
            costs.push(load::cost(&Client::new(*address), processes, &requests, MEASURED).await?);
        }
    }

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
    transport::secure(place, shop_address, &requests, &mut out).await?;
    let (nginx_at, everything) = (nginx.address(), everything.process());
    let compared = [("nginx, plain proxy", nginx_at), ("gateway, rules and model", all_at)];
    transport::waiting(&compared, &requests, &mut out).await?;
    let compared = [
        ("nginx, plain proxy", nginx_at, nginx.process()),
        ("gateway, rules and model", all_at, &*everything),
    ];
    transport::idle(&compared, &mut out).await
}
