//! What the admin API answers: values, or problem documents (RFC 9457), all in one form.

use axum::{
    Json,
    body::to_bytes,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::store::StoreError;

/// Type of a problem document.
const PROBLEM: &str = "application/problem+json";

/// Most bytes of a refusal that axum made by itself.
const MOST_BYTES: usize = 16 * 1024;

/// An answer that changes nothing.
pub type Answer<T> = Result<Json<T>, ApiError>;

/// An answer to an order.
pub type Ordered<T> = Result<Done<T>, ApiError>;

/// Something was changed: what is answered, and what the audit log keeps of it.
#[derive(Debug)]
pub struct Done<T> {
    /// The answer.
    pub answer: T,
    /// For the audit log.
    pub note: Note,
}

/// What an order changed.
#[derive(Debug, Clone)]
pub struct Note {
    /// What: a client, a network, a model.
    pub object: String,
    /// What was so before.
    pub before: Value,
    /// What is so since.
    pub after: Value,
}

impl<T: Serialize> IntoResponse for Done<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.answer).into_response();
        response.extensions_mut().insert(self.note);
        response
    }
}

/// Why an admin request failed; its text names the fix.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Further members of the document.
    more: Map<String, Value>,
}

impl ApiError {
    /// With this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new(), more: Map::new() }
    }

    /// There is no such thing.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// What was sent cannot be understood.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With the members of an object beside its own.
    #[must_use]
    pub fn and(mut self, more: Value) -> Self {
        if let Value::Object(more) = more {
            self.more.extend(more);
        }
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Unexpected { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

/// Why an order failed, for the audit log.
#[derive(Debug, Clone)]
pub struct Failed(pub String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut document = self.more;
        document.insert("type".to_owned(), "about:blank".into());
        document.insert("title".to_owned(), self.status.canonical_reason().unwrap_or("Error").into());
        document.insert("status".to_owned(), self.status.as_u16().into());
        document.insert("detail".to_owned(), self.detail.as_str().into());
        let mut response = (self.status, Json(document)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response.extensions_mut().insert(Failed(self.detail));
        response
    }
}

/// Gives a refusal that axum made by itself (no such path, no such method, a body that is no JSON) the same form.
pub async fn uniform(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM);
    if is_problem
        || !(status.is_client_error() || status.is_server_error())
        || status == StatusCode::SERVICE_UNAVAILABLE
    {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MOST_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let detail = match status {
        StatusCode::NOT_FOUND => "there is no such path; GET /v1/openapi.json lists all".to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take this method".to_owned(),
        _ if text.is_empty() => status.canonical_reason().unwrap_or("Error").to_owned(),
        _ => text,
    };
    let mut problem = ApiError::new(status, detail).into_response();
    if let Some(allow) = parts.headers.remove(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    problem
}

/// The schema of a problem document.
pub fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "const": "about:blank" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What is wrong, and how to mend it." },
        },
    })
}
