//! Composition root: the only file that knows every concrete type.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use waf_model::observation::ValueKey;

use crate::{
    acme::Acme,
    admin::{
        self, Admin, Readiness, SOCKET,
        access::Failures,
        door,
        routes::{self, Parts},
        status,
    },
    admission::Admission,
    audit::{self, Audit, Entry, Standing},
    auth::{Auth, AuthSlot},
    block_list::{BlockList, sync::Sync},
    clock,
    config::{Config, ConfigSlot, Recording, StoreConfig},
    identity,
    inventory::{
        Inventory, Sighting,
        keeper::{self, Keeper},
    },
    listener::set::{ListenerSet, Prepared},
    pipeline::{Gateway, published::Published},
    rate::{self, RateLimits},
    reload::{ConfigSource, Reloader},
    store::{
        BlockStore, EventSink, InventoryStore, ModelSource, StoreError,
        embedded::{EVENTS_CAP, EmbeddedBlocks, SegmentSink},
        embedded_quotas::EmbeddedQuotas,
        model_directory::{ModelDirectory, hex, write_whole},
        record_key,
        redis::RedisStore,
    },
    telemetry::{
        access_log::{AccessLog, Flusher},
        decisions::Decisions,
        events::{
            Events, Record,
            delivery::Delivery,
            spool::{SPOOL_CAP, Spool},
        },
        metrics::Metrics,
        records::{
            self, Records,
            delivery::{Delivery as RecordDelivery, Sealer},
        },
        store_metrics::StoreMetrics,
    },
    upstream::Upstream,
    waf::{
        evidence::Clients,
        model_watch::{ModelWatch, Origin},
    },
};

/// Pause between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// Longest wait for the store to take the last blocks at the end.
const SETTLE: Duration = Duration::from_secs(2);

/// A gateway that is built and bound, ready to run.
pub struct App {
    admin: Arc<Admin>,
    listeners: Prepared,
    source: ConfigSource,
    admin_ports: Vec<TcpListener>,
    admin_socket: UnixListener,
    stores: Stores,
    queue: mpsc::Receiver<Record>,
    full_queue: records::Queue,
    sealer: Option<Arc<Sealer>>,
    sightings: mpsc::Receiver<Sighting>,
    /// Writes the rest of the access log when it is dropped.
    _log: Flusher,
}

/// The three stores, and what stands in for them while they are away.
struct Stores {
    blocks: Arc<dyn BlockStore>,
    events: Arc<dyn EventSink>,
    models: Arc<dyn ModelSource>,
    spool: Option<Arc<Mutex<Spool>>>,
    inventory: Option<Arc<dyn InventoryStore>>,
    site_key: ValueKey,
}

impl App {
    /// Builds everything and binds every address; nothing is served yet.
    ///
    /// # Errors
    /// The first thing that is missing or in use, and what to do about it.
    pub async fn build(config: Config, source: ConfigSource) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let state = config.state.clone();
        fs::create_dir_all(&state).with_context(|| format!("state directory {}", state.display()))?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        // The socket first: it shows whether another gateway uses this state.
        let admin_socket = admin::bind_socket(&state)
            .with_context(|| format!("admin socket {}", state.join(SOCKET).display()))?;
        let (stores, limits) = Stores::open(&config).await?;

        let store_metrics = Arc::new(StoreMetrics::default());
        let mut metrics = Metrics::new();
        store_metrics.register(metrics.registry_mut());
        let (events, queue) = Events::new(config.events_per_second, Arc::clone(&store_metrics));
        let (full_records, full_queue) = Records::new(&config.records, Arc::clone(&store_metrics));
        let sealer = sealer(&config)?;
        let known = keeper::open(&state).context("the inventory of endpoints")?;
        let (inventory, sightings) = Inventory::new(known, stores.inventory.clone());
        inventory.register(metrics.registry_mut());
        let (access_log, log) = AccessLog::stdout().context("a thread for the access log")?;
        let acme = Arc::new(Acme::new(&state));
        let listeners = Prepared::at_start(&config.listeners, &acme)?;
        let mut admin_ports = Vec::new();
        for listener in &config.admin.listeners {
            let port = TcpListener::bind(listener.address).await;
            admin_ports.push(port.with_context(|| {
                format!("admin listener {}; choose another address (admin, or --admin)", listener.address)
            })?);
        }
        let directory = state.join(audit::DIRECTORY);
        let audit = Audit::start(&directory, config.audit_rotate)
            .with_context(|| format!("audit log {}", directory.display()))?;
        audit.register(metrics.registry_mut());

        let gateway = Arc::new(Gateway {
            collections: Arc::default(),
            auth: AuthSlot::new(Auth::new(&config, &stores.site_key, None)?),
            model: Arc::default(),
            clients: Arc::new(Clients::new(config.waf.clients)),
            blocks: Arc::new(BlockList::default()),
            events: Arc::new(events),
            records: Arc::new(full_records),
            inventory: Arc::new(inventory),
            rates: Arc::new(RateLimits::new(&config, stores.site_key, limits, Arc::clone(&store_metrics))),
            decisions: Arc::new(Decisions::default()),
            metrics: Arc::new(metrics),
            access_log,
            audit,
            admin: Published::default(),
            upstream: Upstream::new(&config),
            site_key: stores.site_key,
            acme,
            admission: Arc::new(Admission::new(config.limits.connections)),
            config: Arc::new(ConfigSlot::new(config)),
        });
        let admin = Arc::new(Admin {
            gateway,
            models: Arc::clone(&stores.models),
            store_metrics,
            ready: AtomicBool::new(false),
            failures: Failures::default(),
        });
        Ok(Self {
            admin,
            listeners,
            source,
            admin_ports,
            admin_socket,
            stores,
            queue,
            full_queue,
            sealer,
            sightings,
            _log: log,
        })
    }

    /// What a person wants to know at the start: addresses, effective modes, where to look, what to try.
    pub fn greeting(&self) -> String {
        let config = self.admin.gateway.config.snapshot();
        let mut lines = Vec::new();
        let mut first = None;
        for listener in self.listeners.bound() {
            let tls =
                config.listeners.iter().any(|other| other.name == listener.name() && other.tls.is_some());
            let scheme = if tls { "https" } else { "http" };
            let address = listener.address();
            lines.push(format!("listening  {scheme}://{address} ({})", listener.name()));
            if first.is_none() {
                let host = if address.ip().is_unspecified() {
                    "127.0.0.1".to_owned()
                } else {
                    address.ip().to_string()
                };
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                first = Some(format!("{scheme}://{host}:{}", address.port()));
            }
        }
        for route in status::routes(&config, None) {
            lines.push(format!(
                "route      {}: rules {}, model {}, clients {}",
                route.route, route.rules, route.model, route.clients
            ));
        }
        lines.push(format!("model      {}", status::base_in_words(&config.waf)));
        let full = config.routes.iter().filter(|route| route.record == Recording::Full);
        let full: Vec<&str> = full.map(|route| route.name.as_str()).collect();
        if !full.is_empty() {
            let keep = humantime::format_duration(config.records.keep);
            lines.push(format!("records    whole requests of {}, sealed, kept for {keep}", full.join(", ")));
        }
        let store = match &config.store {
            StoreConfig::Embedded => "embedded",
            StoreConfig::Redis(_) => "redis",
        };
        lines.push(format!("store      {store}, state in {}", config.state.display()));
        let ports = self.admin_ports.iter().zip(&config.admin.listeners).map(|(port, listener)| {
            let scheme = if listener.tls.is_some() { "https" } else { "http" };
            format!(", {scheme}://{}", port.local_addr().unwrap_or(listener.address))
        });
        let ports: String = ports.collect();
        lines.push(format!("admin      unix:{}{ports}", config.state.join(SOCKET).display()));
        if let Some(url) = first {
            lines.push(format!(
                "try        curl -i '{url}/?id=1%27%20or%201=1--%20-'   -> 403 and a request id"
            ));
        }
        lines.push(format!("why        gateway explain <request-id> --state {}", config.state.display()));
        lines.join("\n")
    }

    /// Serves until `shutdown`, then drains: requests in flight first, then the events they left.
    ///
    /// # Errors
    /// A listener cannot be served. A part that fails later is logged and tried again.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            admin,
            listeners,
            source,
            admin_ports,
            admin_socket,
            stores,
            queue,
            full_queue,
            sealer,
            sightings,
            _log,
        } = self;
        let gateway = Arc::clone(&admin.gateway);
        let config = gateway.config.snapshot();
        let Stores { blocks, events, models, spool, inventory: _, site_key: _ } = stores;

        let stop_delivery = CancellationToken::new();
        let full_delivery = sealer.map(|sealer| {
            let (sink, metrics) = (Arc::clone(&events), Arc::clone(&admin.store_metrics));
            let delivery = RecordDelivery { queue: full_queue, sink, sealer, metrics };
            tokio::spawn(delivery.run(stop_delivery.clone()))
        });
        let delivery = Delivery { queue, sink: events, spool, metrics: Arc::clone(&admin.store_metrics) };
        let delivery: JoinHandle<()> = tokio::spawn(delivery.run(stop_delivery.clone()));
        let keeper = Keeper {
            inventory: Arc::clone(&gateway.inventory),
            queue: sightings,
            state: config.state.clone(),
        };
        let keeper = tokio::spawn(keeper.run(stop_delivery.clone()));

        let mut background = JoinSet::new();
        background.spawn(
            Sync {
                list: Arc::clone(&gateway.blocks),
                store: blocks,
                clients: Arc::clone(&gateway.clients),
                config: Arc::clone(&gateway.config),
                metrics: Arc::clone(&admin.store_metrics),
                audit: gateway.audit.clone(),
            }
            .run(),
        );
        background.spawn(
            ModelWatch {
                origin: match &config.waf.model {
                    Some(path) => Origin::File(path.clone()),
                    None => Origin::Published(models),
                },
                slot: Arc::clone(&gateway.model),
                state: config.state.clone(),
                config: Arc::clone(&gateway.config),
                copy: config.waf.model.is_none().then(|| config.state.join("models").join("last.model")),
                metrics: Arc::clone(&admin.store_metrics),
                audit: gateway.audit.clone(),
            }
            .run(),
        );
        let rates = Arc::clone(&gateway.rates);
        background.spawn(async move { rates.run().await });
        let methods = Arc::clone(&gateway);
        background.spawn(async move { methods.auth.run().await });
        let certificates = Arc::clone(&gateway);
        background.spawn(async move {
            let Gateway { acme, config, metrics, audit, .. } = &*certificates;
            acme.run(config, &metrics.tls, audit).await;
        });
        background.spawn(keep_house(Arc::clone(&gateway.clients)));
        let open = Arc::new(ListenerSet::new(Arc::clone(&gateway), shutdown.clone()));
        let reloader = Arc::new(Reloader::new(source, Arc::clone(&gateway), Arc::clone(&open)));
        let api = routes::router(&Parts { admin: Arc::clone(&admin), reloader: Arc::clone(&reloader) });
        gateway.admin.open(api.clone());
        for (place, port) in admin_ports.into_iter().enumerate() {
            background.spawn(door::serve_port(port, place, Arc::clone(&admin), api.clone()));
        }
        background.spawn(door::serve_socket(admin_socket, api));
        let what = json!({ "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() });
        gateway.audit.record(Entry::by_gateway(
            "gateway.start",
            config.state.display().to_string(),
            Value::Null,
            what,
        ));

        open.apply(listeners)?;
        background.spawn(async move { reloader.run().await });
        admin.set_ready(Readiness::Ready);
        shutdown.cancelled().await;
        admin.set_ready(Readiness::NotReady);
        open.ended().await;

        // Blocks and events of the last requests, then the tasks that have nothing left to do.
        if tokio::time::timeout(SETTLE, gateway.blocks.settled()).await.is_err() {
            tracing::warn!("the store does not take the latest blocks; they end with this process");
        }
        gateway.rates.settle().await;
        stop_delivery.cancel();
        if let Err(error) = delivery.await {
            tracing::error!(%error, "event delivery ended badly");
        }
        if let Some(delivery) = full_delivery
            && let Err(error) = delivery.await
        {
            tracing::error!(%error, "delivery of full records ended badly");
        }
        if let Err(error) = keeper.await {
            tracing::error!(%error, "keeping the inventory ended badly");
        }
        background.shutdown().await;
        gateway.audit.record(Entry::by_gateway(
            "gateway.stop",
            config.state.display().to_string(),
            Value::Null,
            Value::Null,
        ));
        gateway.audit.settled().await;
        let Standing { seq, hash, .. } = gateway.audit.standing();
        tracing::info!(head = format!("{seq}:{hash}"), "audit log ends here");
        let _ = fs::remove_file(config.state.join(SOCKET));
        Ok(())
    }
}

/// What seals whole requests, if a route records them.
fn sealer(config: &Config) -> anyhow::Result<Option<Arc<Sealer>>> {
    if config.routes.iter().all(|route| route.record != Recording::Full) {
        return Ok(None);
    }
    let key = match &config.records.key {
        Some(path) => record_key::read(path)?,
        None => record_key::read_or_make(&config.state.join("keys/record.key"))?,
    };
    let named = config.waf.api_key_header.iter().chain(config.auth.secret_headers());
    let named = named.map(|name| name.as_str().to_owned());
    Ok(Some(Arc::new(Sealer { key, keep: config.records.keep, secret_headers: named.collect() })))
}

impl Stores {
    async fn open(config: &Config) -> anyhow::Result<(Self, rate::Stores)> {
        let state = config.state.clone();
        let directory = ModelDirectory::open(&state).with_context(|| state.display().to_string())?;
        let local_key = directory.site_key().await?;
        match &config.store {
            StoreConfig::Embedded => {
                let opened = tokio::task::spawn_blocking(move || {
                    Ok::<_, StoreError>((
                        EmbeddedBlocks::open(&state)?,
                        EmbeddedQuotas::open(&state)?,
                        SegmentSink::open(&state, EVENTS_CAP)?,
                    ))
                });
                let (blocks, quotas, events) = opened.await??;
                let limits = rate::Stores { rates: None, quotas: Arc::new(quotas) };
                let stores = Self {
                    blocks: Arc::new(blocks),
                    events: Arc::new(events),
                    models: Arc::new(directory),
                    spool: None,
                    inventory: None,
                    site_key: ValueKey(local_key),
                };
                Ok((stores, limits))
            }
            StoreConfig::Redis(url) => {
                let store = RedisStore::new(url, local_key, gateway_name(&state)?)?;
                let site_key = shared_site_key(&*store.models, local_key, &state).await?;
                let opened =
                    tokio::task::spawn_blocking(move || Spool::open(&state.join("spool"), SPOOL_CAP));
                let spool = opened.await?.context("spool")?;
                let limits =
                    rate::Stores { rates: Some(Arc::clone(&store.limits) as _), quotas: store.limits };
                let stores = Self {
                    blocks: store.blocks,
                    events: store.events,
                    models: store.models,
                    spool: Some(Arc::new(Mutex::new(spool))),
                    inventory: Some(store.inventory),
                    site_key: ValueKey(site_key),
                };
                Ok((stores, limits))
            }
        }
    }
}

/// What tells this gateway from others, made at first use.
fn gateway_name(state: &Path) -> anyhow::Result<String> {
    let path = state.join("keys").join("gateway.name");
    match fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => {
            let (name, _) = identity::fresh_request_id();
            write_whole(&path, name.as_bytes(), 0o600).with_context(|| path.display().to_string())?;
            Ok(name)
        }
    }
}

/// The key that all gateways of a site share. While Redis is away the copy of the last start has to do.
async fn shared_site_key(
    models: &dyn ModelSource,
    local: [u8; 16],
    state: &Path,
) -> anyhow::Result<[u8; 16]> {
    match models.site_key().await {
        Ok(shared) => {
            if shared != local {
                let path = state.join("keys").join("site.key");
                write_whole(&path, hex(&shared).as_bytes(), 0o600)
                    .with_context(|| path.display().to_string())?;
            }
            Ok(shared)
        }
        Err(StoreError::Away(error)) => {
            tracing::warn!(
                error,
                "Redis is away: starting with the local copy of the site key, and without shared blocks"
            );
            Ok(local)
        }
        Err(error) => Err(error.into()),
    }
}

async fn keep_house(clients: Arc<Clients>) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        clients.purge(clock::now_ms());
    }
}
