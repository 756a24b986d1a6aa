//! The processes of the demo: the example API, the gateway, the trainer, and Redis if it was asked for.

use std::{env, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    ports,
    process::{Process, binary},
    redis_server::RedisServer,
    trainer::Workplace,
};

use crate::story::Story;

/// Everything that runs; all of it ends, and its files go, when this is dropped.
#[derive(Debug)]
pub(crate) struct World {
    /// The gateway.
    pub(crate) gateway: Gateway,
    /// The trainer, training on a schedule.
    pub(crate) trainer: Process,
    // Held for their end, in this order: the gateway before what it needs.
    _shop: Process,
    _redis: Option<RedisServer>,
    _directory: TempDir,
}

/// The budget that the demo asks for: false positives per request, and per client and day.
pub(crate) const REQUEST_BUDGET: &str = "1e-3";
pub(crate) const CLIENT_BUDGET: &str = "1e-2";

impl World {
    /// Starts everything.
    pub(crate) async fn start(story: &mut Story) -> Result<Self> {
        story.chapter("An example API, a gateway before it, a trainer beside it");
        let directory = tempfile::Builder::new().prefix("portcullis-demo-").tempdir()?;
        let redis = match env::var("STORE").as_deref() {
            Err(_) | Ok("" | "embedded") => None,
            Ok("redis") => Some(RedisServer::start(directory.path().join("redis")).await?),
            Ok(other) => bail!("STORE is `{other}`; it can be `embedded` (default) or `redis`"),
        };

        let shop_address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let mut shop = Process::spawn(
            "shop",
            Command::new(binary("shop")?).arg(shop_address.to_string()),
            directory.path(),
        )?;
        let direct = Client::new(shop_address);
        shop.wait_until("answering", Duration::from_secs(10), async || direct.get("/healthz").await.is_ok())
            .await?;

        let mut settings = Settings::new(format!("http://{shop_address}"));
        settings.redis = redis.as_ref().map(RedisServer::url);
        let gateway = Gateway::start(directory.path(), &settings).await.context("starting the gateway")?;
        let workplace = Workplace::new(directory.path(), gateway.state(), settings.redis.clone());
        let trainer = workplace.start(&[
            "run",
            "--poll",
            "1s",
            "--interval",
            "10s",
            "--min-requests",
            &crate::learning::LESSON.to_string(),
            "--request-budget",
            REQUEST_BUDGET,
            "--client-budget",
            CLIENT_BUDGET,
        ])?;

        story.line(&format!("shop     pid {:<7} http://{shop_address}", shop.pid()));
        let mut world = Self { gateway, trainer, _shop: shop, _redis: redis, _directory: directory };
        let store = settings.redis.map_or_else(|| "embedded store".to_owned(), |url| format!("store {url}"));
        let (address, pid) = (world.gateway.address(), world.gateway.process().pid());
        story.line(&format!("gateway  pid {pid:<7} http://{address}  {store}, mode block"));
        story.line(&format!("trainer  pid {:<7} budget asked for: {REQUEST_BUDGET} of requests, {CLIENT_BUDGET} of client-days", world.trainer.pid()));

        let http = world.gateway.client();
        let harmless = http.get("/api/products/1").await?;
        let attack = http.get("/?id=1%27%20or%201=1--%20-").await?;
        story.line(&format!("GET /api/products/1            -> {}", harmless.status));
        story.line(&format!(
            "GET /?id=1%27%20or%201=1--%20- -> {}  (rules protect before anything was learned)",
            attack.status
        ));
        if harmless.status != 200 || attack.status != 403 {
            story.fail("before learning, a harmless request must pass and an injection must not".to_owned());
        }
        Ok(world)
    }
}
