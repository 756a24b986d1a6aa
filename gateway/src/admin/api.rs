//! Blocks, the allow list, explained requests and status on the admin API.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use waf_model::{event::ReviewVerdict, keys::ClientKey};

use crate::{
    admin::{
        Admin,
        answers::{Answer, ApiError, Done, Note, Ordered},
        reviews,
        status::{self, Status},
    },
    block_list::{self, Allow, networks},
    clock,
    store::{
        Block,
        raw_block::{RawBlock, canonical},
    },
    telemetry::decisions::Flagged,
};

pub(super) async fn show_status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    Json(status::status(&admin))
}

/// A block with its moments in words.
#[derive(Debug, Serialize)]
pub(super) struct ShownBlock {
    #[serde(flatten)]
    block: Block,
    first_seen: String,
    last_seen: String,
    expires: String,
    /// Requests of this client that were flagged lately, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flagged: Vec<Flagged>,
}

impl From<Block> for ShownBlock {
    fn from(block: Block) -> Self {
        Self {
            first_seen: clock::text(block.first_seen_ms),
            last_seen: clock::text(block.last_seen_ms),
            expires: clock::text(block.expires_ms),
            block,
            flagged: Vec::new(),
        }
    }
}

fn shown(blocks: Vec<Arc<Block>>) -> Vec<ShownBlock> {
    blocks.into_iter().map(|block| ShownBlock::from(Arc::unwrap_or_clone(block))).collect()
}

pub(super) async fn list_blocks(State(admin): State<Arc<Admin>>) -> Json<Vec<ShownBlock>> {
    Json(shown(admin.gateway.blocks.in_force(clock::now_ms())))
}

/// Names a client, and a scope if only one of its blocks is meant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClient {
    /// Address, network in CIDR form, `consumer:NAME`, `key:HASH` or `session:HASH`.
    client: String,
    /// Route name or `all`, if only that block is meant.
    scope: Option<String>,
}

pub(super) async fn show_blocks(
    State(admin): State<Arc<Admin>>,
    Query(raw): Query<RawClient>,
) -> Answer<Vec<ShownBlock>> {
    let blocks = find_blocks(&admin, &raw)?;
    let mut blocks = shown(blocks);
    for shown in &mut blocks {
        let flagged = admin.gateway.decisions.of_client(&shown.block.client.0.to_string(), 10);
        shown.flagged = flagged.into_iter().map(Arc::unwrap_or_clone).collect();
    }
    Ok(Json(blocks))
}

/// A block as ordered by a person.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNewBlock {
    /// Address, network in CIDR form, `consumer:NAME`, `key:HASH` or `session:HASH`.
    client: String,
    /// Route name (default: all).
    scope: Option<String>,
    /// Why.
    reason: Option<String>,
    /// How long; without it until it is released.
    ttl_seconds: Option<u64>,
}

pub(super) async fn add_block(
    State(admin): State<Arc<Admin>>,
    Json(raw): Json<RawNewBlock>,
) -> Ordered<ShownBlock> {
    let now_ms = clock::now_ms();
    let client = client_key(&raw.client)?;
    if let Some(scope) = &raw.scope
        && scope != "all"
        && !admin.gateway.config.snapshot().routes.iter().any(|route| route.name == *scope)
    {
        return Err(ApiError::invalid(format!("scope `{scope}` is neither `all` nor the name of a route")));
    }
    let ttl = raw.ttl_seconds.map(|seconds| clock::millis(Duration::from_secs(seconds)));
    let block = RawBlock {
        client: client.to_string(),
        scope: raw.scope,
        reason: Some(raw.reason.unwrap_or_else(|| "by hand".to_owned())),
        expires_ms: ttl.map(|ttl| now_ms.saturating_add(ttl)),
        ..RawBlock::default()
    }
    .check(now_ms)
    .map_err(ApiError::invalid)?;
    let same = |other: &&Arc<Block>| other.client == block.client && other.scope == block.scope;
    let in_force = admin.gateway.blocks.in_force(now_ms);
    let before = block_list::noted(in_force.iter().find(same).map(AsRef::as_ref));
    let note = Note { object: client.to_string(), before, after: block_list::noted(Some(&block)) };
    admin.gateway.blocks.block(block.clone());
    Ok(Done { answer: ShownBlock::from(block), note })
}

pub(super) async fn release(
    State(admin): State<Arc<Admin>>,
    Json(raw): Json<RawClient>,
) -> Ordered<Vec<ShownBlock>> {
    let blocks = find_blocks(&admin, &raw)?;
    let until_ms =
        clock::now_ms().saturating_add(clock::millis(admin.gateway.config.snapshot().waf.release_hold));
    let mut forgotten = 0_usize;
    for block in &blocks {
        // Held before it is let in, so that no request in between can block it again.
        admin.gateway.clients.release(&block.client.0, until_ms);
        admin.gateway.blocks.release(&block.scope, &block.client.0);
        // The client is free now, whether the trainer hears of it or not.
        forgotten += usize::from(reviews::record(&admin, block, ReviewVerdict::FalsePositive).is_err());
        tracing::info!(scope = block.scope, client = %block.client.0, "client released by an operator");
    }
    let note = Note {
        object: named(&blocks),
        before: noted(&blocks),
        after: json!({ "held_until": clock::text(until_ms), "reviews_lost": forgotten }),
    };
    Ok(Done { answer: shown(blocks), note })
}

pub(super) async fn confirm(
    State(admin): State<Arc<Admin>>,
    Json(raw): Json<RawClient>,
) -> Ordered<Vec<ShownBlock>> {
    let blocks = find_blocks(&admin, &raw)?;
    for block in &blocks {
        reviews::record(&admin, block, ReviewVerdict::Confirmed)?;
    }
    let note = Note { object: named(&blocks), before: Value::Null, after: noted(&blocks) };
    Ok(Done { answer: shown(blocks), note })
}

/// The client whose blocks these are.
fn named(blocks: &[Arc<Block>]) -> String {
    blocks.first().map_or_else(String::new, |block| block.client.0.to_string())
}

fn noted(blocks: &[Arc<Block>]) -> Value {
    blocks.iter().map(|block| block_list::noted(Some(block))).collect()
}

pub(super) async fn list_allowed(State(admin): State<Arc<Admin>>) -> Json<Vec<AllowEntry>> {
    let config = admin.gateway.config.snapshot();
    let configured =
        config.waf.allow.iter().map(|network| AllowEntry { network: network.to_string(), from: "config" });
    let added = admin.gateway.blocks.allow_entries().into_iter();
    Json(configured.chain(added.map(|network| AllowEntry { network, from: "run time" })).collect())
}

/// One entry of the allow list.
#[derive(Debug, Serialize)]
pub(super) struct AllowEntry {
    network: String,
    from: &'static str,
}

/// A network to allow, or not any more.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAllow {
    /// Address or network in CIDR form.
    network: String,
    /// Whether it shall be.
    allowed: bool,
}

pub(super) async fn set_allowed(
    State(admin): State<Arc<Admin>>,
    Json(raw): Json<RawAllow>,
) -> Ordered<AllowEntry> {
    let network: IpNet = networks::parse(&raw.network)
        .ok_or_else(|| {
            ApiError::invalid(format!("`{}` is neither an address nor a network in CIDR form", raw.network))
        })?
        .trunc();
    let text = network.to_string();
    if !raw.allowed && !admin.gateway.blocks.allow_entries().contains(&text) {
        let configured =
            admin.gateway.config.snapshot().waf.allow.iter().any(|entry| entry.trunc() == network);
        let hint = if configured { "; it is allowed by the configuration file" } else { "" };
        return Err(ApiError::not_found(format!("{text} was not allowed at run time{hint}")));
    }
    let before = admin.gateway.blocks.allow_entries().contains(&text);
    admin.gateway.blocks.set_allowed(network, if raw.allowed { Allow::Add } else { Allow::Remove });
    let note = Note { object: text.clone(), before: before.into(), after: raw.allowed.into() };
    Ok(Done { answer: AllowEntry { network: text, from: "run time" }, note })
}

/// Names a request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequest {
    /// Request id, as sent to the client in X-Request-Id.
    request_id: String,
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    Query(raw): Query<RawRequest>,
) -> Answer<Flagged> {
    admin.gateway.decisions.find(&raw.request_id).map(Arc::unwrap_or_clone).map(Json).ok_or_else(|| {
        ApiError::not_found(format!(
            "no flagged request {} is remembered: only the latest 10,000 since the start are, and requests of clients that were blocked already are not inspected; see `gateway blocks list` for those",
            raw.request_id
        ))
    })
}

/// The blocks in force that a person names; an error if there are none.
fn find_blocks(admin: &Admin, raw: &RawClient) -> Result<Vec<Arc<Block>>, ApiError> {
    let client = client_key(&raw.client)?;
    let in_force = admin.gateway.blocks.in_force(clock::now_ms());
    let named: Vec<_> = in_force
        .iter()
        .filter(|block| block.client.0 == client)
        .filter(|block| raw.scope.as_ref().is_none_or(|scope| *scope == block.scope))
        .cloned()
        .collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let covering = in_force.iter().find(|block| covers(&block.client.0, &client));
    let hint = covering.map_or_else(String::new, |block| {
        format!("; it is blocked as part of {} (scope {})", block.client.0, block.scope)
    });
    Err(ApiError::not_found(format!("{client} is not blocked{hint}")))
}

fn covers(outer: &ClientKey, inner: &ClientKey) -> bool {
    let (ClientKey::Address(outer), ClientKey::Address(inner)) = (outer, inner) else { return false };
    match (networks::parse(outer), networks::parse(inner)) {
        (Some(outer), Some(inner)) => outer.contains(&inner),
        _ => false,
    }
}

/// Reads `<kind>:<key>`, or an address or network alone.
fn client_key(text: &str) -> Result<ClientKey, ApiError> {
    let key = if networks::parse(text).is_some() {
        Some(ClientKey::Address(text.to_owned()))
    } else {
        ClientKey::parse(text)
    };
    key.and_then(|key| canonical(&key)).ok_or_else(|| {
        ApiError::invalid(format!(
            "`{text}` is no client: write an address, a network, `key:<hash>` or `session:<hash>` as `gateway blocks list` shows it"
        ))
    })
}
