//! Everything the admin API offers, in one table: the router, the access checks and the description are made from it.

use std::sync::Arc;

use axum::{
    Router,
    extract::FromRef,
    middleware::{from_fn_with_state, map_response},
    routing::{MethodRouter, get, post},
};
use schemars::Schema;

use super::{Admin, access, answers, api, breaker, health, inventory, log, models, openapi, reload};
use crate::{config::admin::Role, reload::Reloader};

/// What comes before the paths of the API, but for health and metrics.
pub const PREFIX: &str = "/v1";

/// What handlers are given.
#[derive(Clone)]
pub struct Parts {
    /// What they look at and act on.
    pub admin: Arc<Admin>,
    /// What reads the configuration again.
    pub reloader: Arc<Reloader>,
}

impl FromRef<Parts> for Arc<Admin> {
    fn from_ref(parts: &Parts) -> Self {
        Self::clone(&parts.admin)
    }
}

impl FromRef<Parts> for Arc<Reloader> {
    fn from_ref(parts: &Parts) -> Self {
        Self::clone(&parts.reloader)
    }
}

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Looks.
    Get,
    /// Orders.
    Post,
}

impl Verb {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// What is needed to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nobody,
    /// Nothing on this machine; this role from elsewhere.
    RoleFromAfar(Role),
    /// This role, or one above.
    Role(Role),
}

/// What is sent.
#[derive(Clone, Copy)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// Arguments in the query.
    Query(fn() -> Schema),
    /// A JSON document.
    Document(fn() -> Schema),
}

/// One path with one method.
pub struct Row {
    /// Its method.
    pub verb: Verb,
    /// Its path, prefix included.
    pub path: &'static str,
    /// What is needed.
    pub need: Need,
    /// What the audit log calls it; nothing where nothing changes, or the one who acts notes it.
    pub action: Option<&'static str>,
    /// What it does.
    pub summary: &'static str,
    /// What is sent.
    pub input: Input,
    /// What comes back.
    pub answer: &'static str,
    handler: fn() -> MethodRouter<Parts>,
}

const VIEWER: Need = Need::Role(Role::Viewer);
const REVIEWER: Need = Need::Role(Role::Reviewer);
const OPERATOR: Need = Need::Role(Role::Operator);
const ADMIN: Need = Need::Role(Role::Admin);

const fn look(
    path: &'static str,
    need: Need,
    summary: &'static str,
    input: Input,
    answer: &'static str,
    handler: fn() -> MethodRouter<Parts>,
) -> Row {
    Row { verb: Verb::Get, path, need, action: None, summary, input, answer, handler }
}

const fn order(
    path: &'static str,
    need: Need,
    action: &'static str,
    summary: &'static str,
    input: Input,
    answer: &'static str,
    handler: fn() -> MethodRouter<Parts>,
) -> Row {
    Row { verb: Verb::Post, path, need, action: Some(action), summary, input, answer, handler }
}

macro_rules! schema {
    ($kind:ty) => {
        || schemars::schema_for!($kind)
    };
}

use Input::{Document, Nothing, Query};

/// The table.
pub static ROWS: &[Row] = &[
    look("/healthz", Need::Nobody, "Whether the process answers", Nothing, "The word ok.", || {
        get(health::alive)
    }),
    look(
        "/readyz",
        Need::Nobody,
        "Whether traffic may be sent here; with a token also the status",
        Nothing,
        "`ready`, and for viewers the members of the status; 503 while starting or draining.",
        || get(health::ready),
    ),
    look(
        "/metrics",
        Need::RoleFromAfar(Role::Viewer),
        "Metrics in the text format of OpenMetrics",
        Nothing,
        "Metrics.",
        || get(health::metrics),
    ),
    look("/v1/openapi.json", VIEWER, "This description", Nothing, "An OpenAPI 3.1 document.", || {
        get(openapi::show)
    }),
    look(
        "/v1/status",
        VIEWER,
        "Modes of each route, model, store, audit log",
        Nothing,
        "The status.",
        || get(api::show_status),
    ),
    look("/v1/blocks", VIEWER, "Every block in force", Nothing, "A list of blocks.", || {
        get(api::list_blocks)
    }),
    order(
        "/v1/blocks",
        OPERATOR,
        "block.put",
        "Block a client by hand",
        Document(schema!(api::RawNewBlock)),
        "The block.",
        || post(api::add_block),
    ),
    look(
        "/v1/blocks/show",
        VIEWER,
        "All blocks of one client, with its latest flagged requests",
        Query(schema!(api::RawClient)),
        "A list of blocks.",
        || get(api::show_blocks),
    ),
    order(
        "/v1/blocks/release",
        REVIEWER,
        "block.release",
        "End a client's blocks and remember them as false positives",
        Document(schema!(api::RawClient)),
        "The blocks that were released.",
        || post(api::release),
    ),
    order(
        "/v1/blocks/confirm",
        REVIEWER,
        "block.confirm",
        "Remember a client's blocks as justified",
        Document(schema!(api::RawClient)),
        "The blocks that were confirmed.",
        || post(api::confirm),
    ),
    look(
        "/v1/allow",
        VIEWER,
        "Networks that are never inspected nor blocked",
        Nothing,
        "A list of networks.",
        || get(api::list_allowed),
    ),
    order(
        "/v1/allow",
        OPERATOR,
        "allow.set",
        "Allow a network, or not any more",
        Document(schema!(api::RawAllow)),
        "The network.",
        || post(api::set_allowed),
    ),
    look(
        "/v1/explain",
        VIEWER,
        "Why a request was flagged",
        Query(schema!(api::RawRequest)),
        "Rules, features, evidence.",
        || get(api::explain),
    ),
    look(
        "/v1/inventory",
        VIEWER,
        "Every endpoint that was seen",
        Query(schema!(inventory::RawWanted)),
        "A list of endpoints: methods, callers, volume, errors, first and last seen.",
        || get(inventory::list),
    ),
    order(
        "/v1/breaker/reset",
        OPERATOR,
        "breaker.reset",
        "Let the model act again on a route, or on all",
        Document(schema!(breaker::RawReset)),
        "What became of each breaker.",
        || post(breaker::reset),
    ),
    look("/v1/models", VIEWER, "Every model that is kept", Nothing, "A list of models.", || {
        get(models::list)
    }),
    look(
        "/v1/models/show",
        VIEWER,
        "One model: where it comes from, what it promises",
        Query(schema!(models::RawModelName)),
        "The model.",
        || get(models::show),
    ),
    order(
        "/v1/models/rollback",
        OPERATOR,
        "model.rollback",
        "Go back to the model that was in force before",
        Nothing,
        "The model.",
        || post(models::roll_back),
    ),
    order(
        "/v1/models/current",
        OPERATOR,
        "model.choose",
        "Put a model in force",
        Document(schema!(models::RawModelName)),
        "The model.",
        || post(models::set_current),
    ),
    look(
        "/v1/config",
        OPERATOR,
        "The configuration in force, as it is written, without secrets",
        Nothing,
        "File, document, and how the last reload ended.",
        || get(reload::show),
    ),
    // The one who reloads notes it, whoever asked for it.
    Row {
        action: None,
        ..order(
            "/v1/config/reload",
            OPERATOR,
            "config.reload",
            "Read the configuration again, and put it in force as a whole or not at all",
            Nothing,
            "What is different now. 422 with every mistake if it was refused.",
            || post(reload::reload),
        )
    },
    look(
        "/v1/audit/head",
        VIEWER,
        "Number and hash of the last entry of the audit log",
        Nothing,
        "Both.",
        || get(log::head),
    ),
    look(
        "/v1/audit",
        ADMIN,
        "The latest entries of the audit log",
        Query(schema!(log::RawFilter)),
        "A list of entries, oldest first.",
        || get(log::show),
    ),
];

/// The router of everything in the table.
pub fn router(parts: &Parts) -> Router {
    let mut router = Router::new();
    for row in ROWS {
        let guard = from_fn_with_state((Arc::clone(&parts.admin), row), access::guard);
        router = router.route(row.path, (row.handler)().route_layer(guard));
    }
    router.with_state(parts.clone()).layer(map_response(answers::uniform))
}
