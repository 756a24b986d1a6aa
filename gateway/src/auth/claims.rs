//! What issuers say about a caller, in the form of claims, and what that means here.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

use super::{Reason, principal::Findings};
use crate::config::auth::ClaimNames;

/// Claims about one caller.
pub type Claims = Map<String, Value>;

/// What claims say, and what the configuration says about their subject.
pub fn findings(claims: Claims, names: &ClaimNames, consumers: &HashMap<String, Findings>) -> Findings {
    let subject = claims.get("sub").and_then(Value::as_str).map(str::to_owned);
    let known = subject.as_ref().and_then(|subject| consumers.get(subject));
    let mut findings = known.cloned().unwrap_or_default();
    if let Some(groups) = claim(&claims, &names.groups) {
        findings.groups.extend(words(groups));
    }
    let scopes = names.scopes.iter().find_map(|name| claim(&claims, name));
    findings.scopes = scopes.map(words).unwrap_or_default();
    findings.subject = subject;
    findings.claims = Arc::new(claims);
    findings
}

/// Whether now lies between two moments, in seconds since 1970.
///
/// # Errors
/// It is too late, or too early.
pub fn hold(from: f64, until: f64, now: f64) -> Result<(), Reason> {
    if now >= until {
        return Err(Reason::TokenExpired);
    }
    if now < from { Err(Reason::TokenTooEarly) } else { Ok(()) }
}

/// From when claims hold: `nbf`, and not before they were made.
///
/// # Errors
/// One of them is no moment.
pub fn from(claims: &Claims) -> Result<f64, Reason> {
    let moments = [seconds(claims, "nbf")?, seconds(claims, "iat")?];
    Ok(moments.into_iter().flatten().fold(f64::MIN, f64::max))
}

/// A moment, in seconds since 1970.
///
/// # Errors
/// It is there, and no number.
pub fn seconds(claims: &Claims, name: &str) -> Result<Option<f64>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().filter(|at| at.is_finite()).map(Some).ok_or(Reason::NoToken),
    }
}

/// Whether claims are meant for one of `audience`.
pub fn is_for(claims: &Claims, audience: &[String]) -> bool {
    let is_ours = |name: &Value| name.as_str().is_some_and(|name| audience.iter().any(|ours| ours == name));
    match claims.get("aud") {
        Some(Value::Array(names)) => names.iter().any(is_ours),
        Some(name) => is_ours(name),
        None => false,
    }
}

/// A claim by its name, or by a path of names parted by dots.
fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut names = name.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// The words of a claim: a list, or text parted by blanks (RFC 8693, 4.2).
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}
