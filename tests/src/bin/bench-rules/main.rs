//! CPU time that rules cost: the gateway with the OWASP Core Rule Set and with its own rules, beside nginx with
//! ModSecurity and the same Core Rule Set, in one run and under the same requests.
//!
//! CPU time holds when the machine is noisy; absolute figures move with the machine, so the ratios are what to quote.

mod mix;
mod rule_sets;
mod sink;
mod upload;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use datasets::request::GeneratedRequest;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    load::{self, CONNECTIONS, median},
    nginx::Nginx,
    process::Process,
    teacher::{self, Teacher},
};

use crate::{rule_sets::RuleSets, sink::Sink};

/// Rounds, each measuring every proxy once, in turn: what disturbs the machine disturbs all of them.
const ROUNDS: usize = 3;

/// How long one proxy is measured in one round.
const MEASURED: Duration = Duration::from_secs(5);

/// Body sizes for the growth of cost.
const SIZES: [usize; 6] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// What stands in the first line of the growth's table, and between which the rules' part is taken.
const GROWTH: [&str; 3] = [WITHOUT_RULES, "gateway, own rules", WITH_CRS_3];

/// All of inspection but the rules: what they add is measured on top of it.
const WITHOUT_RULES: &str = "gateway, no rules";

const WITH_CRS_3: &str = "gateway, CRS 3";

#[tokio::main]
async fn main() -> Result<()> {
    let place = tempfile::Builder::new().prefix("portcullis-bench-rules-").tempdir()?;
    let place = place.path();
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let debian = arguments.next().context("usage: bench-rules DIR [DIR]: the Core Rule Set 3, and 4")?;
    let sets = RuleSets::write(place, &debian, arguments.next().as_deref())?;
    let sink = Sink::start().await?;
    let mut proxies = Proxies::start(place, sink.address(), &sets).await?;
    let mut out = io::stdout().lock();
    mix_table(&mut out, &proxies).await?;
    growth_table(&mut out, &proxies).await?;
    let gateway = proxies.gateways.last_mut().context("a gateway")?.1.process();
    upload::measure(&mut out, gateway.pid(), proxies.all.last().context("a proxy")?.1).await?;
    Ok(())
}

/// Every proxy under test.
struct Proxies {
    gateways: Vec<(&'static str, Gateway)>,
    nginxes: Vec<(&'static str, Nginx)>,
    /// Name and address, nginx first.
    all: Vec<(&'static str, SocketAddr)>,
}

impl Proxies {
    async fn start(place: &Path, origin: SocketAddr, sets: &RuleSets) -> Result<Self> {
        let mut nginxes =
            vec![("nginx, plain proxy", Nginx::start(&place.join("plain"), origin, None).await?)];
        let modsecurity = Nginx::start(&place.join("modsecurity"), origin, Some(&sets.modsecurity)).await?;
        nginxes.push(("nginx + ModSecurity + CRS 3", modsecurity));
        let mut gateways = Vec::new();
        let kinds = [
            ("gateway, mode off", "off", None),
            (WITHOUT_RULES, "detect", Some("[]")),
            ("gateway, own rules", "detect", Some("[builtin]")),
            (WITH_CRS_3, "detect", Some("[crs3]")),
            ("gateway, CRS 4", "detect", sets.version_4.is_some().then_some("[crs4]")),
        ];
        for (at, (name, mode, rules)) in kinds.into_iter().enumerate() {
            if mode != "off" && rules.is_none() {
                continue;
            }
            let home = place.join(format!("gateway-{at}"));
            let mut settings = Settings::new(format!("http://{origin}"));
            settings.mode = mode;
            // One address sends all of the load: as a client it would be blocked, and blocking is cheap.
            settings.waf = vec!["block_clients: off".to_owned(), "oversize: inspect_prefix".to_owned()];
            settings.waf.push(sets.yaml());
            settings.waf.extend(rules.map(|names| format!("rules: {names}")));
            settings.more.push("limits: {body: 2GiB}".to_owned());
            // The model knows another site's requests and would refuse half of these; so it only reports.
            if mode != "off" {
                let teacher = Teacher::new(1)?;
                teacher.install_keys(&home.join("state"))?;
                teacher::publish(&home.join("state"), 1, &teacher.artifact(&teacher.model(1)?)?)?;
            }
            let gateway = Gateway::start(&home, &settings).await?;
            if mode != "off" {
                gateway.wait_model(1, Duration::from_secs(10)).await?;
            }
            gateways.push((name, gateway));
        }
        let all = nginxes.iter().map(|(name, nginx)| (*name, nginx.address()));
        let all = all.chain(gateways.iter().map(|(name, gateway)| (*name, gateway.address()))).collect();
        Ok(Self { gateways, nginxes, all })
    }

    fn process(&self, name: &str) -> Option<&Process> {
        let gateway =
            self.gateways.iter().find(|(other, _)| *other == name).map(|(_, gateway)| gateway.watch());
        gateway.or_else(|| {
            self.nginxes.iter().find(|(other, _)| *other == name).map(|(_, nginx)| nginx.process())
        })
    }

    /// CPU microseconds a request, for each of `names`: the median of `rounds`, taken in turn.
    async fn costs(
        &self,
        names: &[&'static str],
        requests: &Arc<[GeneratedRequest]>,
        rounds: usize,
        time: Duration,
    ) -> Result<Vec<f64>> {
        let mut costs = vec![Vec::new(); names.len()];
        for _ in 0..rounds {
            for (costs, name) in costs.iter_mut().zip(names) {
                let (_, address) = self.all.iter().find(|(other, _)| other == name).context("a proxy")?;
                let process = self.process(name).context("a proxy's process")?;
                costs.push(
                    load::cost(&Client::new(*address), &[process], requests, time).await.context(*name)?,
                );
            }
        }
        Ok(costs.iter().map(|costs| median(costs)).collect())
    }
}

async fn mix_table(out: &mut impl io::Write, proxies: &Proxies) -> Result<()> {
    let names: Vec<&'static str> = proxies.all.iter().map(|(name, _)| *name).collect();
    let costs = proxies.costs(&names, &mix::eight_kinds(), ROUNDS, MEASURED).await?;
    let of = |wanted: &str| {
        names.iter().zip(&costs).find(|(name, _)| **name == wanted).map_or(f64::NAN, |(_, cost)| *cost)
    };
    let (plain, without) = (of("nginx, plain proxy"), of(WITHOUT_RULES));
    writeln!(out, "{:<28} {:>14} {:>10} {:>16}", "proxy", "CPU us/request", "x nginx", "rules add, us")?;
    for (name, cost) in names.iter().zip(&costs) {
        let base = if name.starts_with("gateway") { without } else { plain };
        writeln!(out, "{name:<28} {cost:>14.1} {:>10.2} {:>16.1}", cost / plain, cost - base)?;
    }
    let ours = of(WITH_CRS_3) - without;
    writeln!(
        out,
        "ModSecurity adds {:.0} times what our engine adds for the same rules\n\
         every gateway but the first observes, scores with a model and writes events; rules come on top of that\n\
         medians of {ROUNDS} rounds of {MEASURED:?}, {CONNECTIONS} connections, eight kinds of requests in turn, \
         paranoia level 1; the gateway writes its access log, nginx none",
        (of("nginx + ModSecurity + CRS 3") - plain) / ours
    )?;
    Ok(())
}

async fn growth_table(out: &mut impl io::Write, proxies: &Proxies) -> Result<()> {
    writeln!(
        out,
        "\nCPU us/request by size of a form in the body\n{:>10} {:>18} {:>18} {:>18}",
        "bytes", GROWTH[0], GROWTH[1], GROWTH[2]
    )?;
    for size in SIZES {
        let costs = proxies.costs(&GROWTH, &mix::forms(size), 1, Duration::from_secs(2)).await?;
        let cells: Vec<String> = costs.iter().map(|cost| format!("{cost:>18.1}")).collect();
        writeln!(out, "{size:>10} {}", cells.join(" "))?;
    }
    Ok(())
}
