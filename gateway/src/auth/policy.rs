//! What a route demands of a request beyond groups and scopes: an expression in CEL, the Common Expression Language, over
//! who calls and what is asked for.
//!
//! Nothing in it can run for ever: the language has no loops but over lists, and of these no two over what a request
//! brings lie within each other, so that the time is in proportion to the size of the request.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cel::{
    Context, Env, IdedExpr, Program, Value,
    common::ast::{EntryExpr, Expr},
    to_value,
};
use http::{HeaderMap, HeaderName, header, request::Parts};
use serde::Serialize;
use serde_json::Map;

use super::Principal;
use crate::identity::Identity;

/// Longest expression, in bytes.
const LONGEST: usize = 4096;

/// Most loops within each other, those over written lists included.
const LOOPS: usize = 2;

/// What an expression may ask for.
const KNOWN: [&str; 8] = ["consumer", "groups", "scopes", "claims", "request", "address", "country", "asn"];

/// Headers that carry credentials on any route.
const SECRET: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// Reasons of refusals, in the log: an expression said no, or came to no answer.
pub const DENIED: &str = "policy_denied";
/// The other one.
pub const FAILED: &str = "policy_failed";

/// An expression that says who may do what.
pub struct Policy {
    program: Program,
    environment: Arc<Env>,
    hidden: Hidden,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("text", &self.program.source_info().source).finish_non_exhaustive()
    }
}

/// What carries credentials, and is not shown to an expression.
#[derive(Debug, Default)]
pub struct Hidden {
    /// Headers.
    pub headers: Vec<HeaderName>,
    /// Query arguments.
    pub arguments: Vec<String>,
}

/// What an expression says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It may go on.
    Allowed,
    /// It may not.
    Denied,
    /// It came to no answer, as where it asks for a claim that is not there.
    Failed,
}

/// A request as an expression sees it.
#[derive(Serialize)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    /// Every value of each argument.
    query: BTreeMap<String, Vec<String>>,
    headers: BTreeMap<&'a str, String>,
}

impl Policy {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, and at which line and column of the expression.
    pub fn compile(text: &str, hidden: Hidden) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let environment = Arc::new(Env::stdlib());
        let program = environment.compile(text).map_err(|errors| {
            let told = errors.errors.iter().map(|error| {
                let (line, column) = error.pos;
                format!("line {line}, column {column}: {}", error.msg)
            });
            format!("is not a CEL expression: {}", told.collect::<Vec<_>>().join("; "))
        })?;
        let place = |id: u64| {
            let start = program.source_info().offset_for(id).map_or(0, |(start, _)| start);
            format!("column {}", start + 1)
        };
        check(program.expression(), &mut Vec::new(), (0, 0), &place)?;
        Ok(Self { program, environment, hidden })
    }

    /// Asks whether `caller` (nobody known, if there is none) may send this request.
    pub fn judge(&self, caller: Option<&Principal>, identity: &Identity, parts: &Parts) -> Judgement {
        match self.evaluate(caller, identity, parts) {
            Some(Value::Bool(true)) => Judgement::Allowed,
            Some(Value::Bool(false)) => Judgement::Denied,
            _ => Judgement::Failed,
        }
    }

    fn evaluate(&self, caller: Option<&Principal>, identity: &Identity, parts: &Parts) -> Option<Value> {
        let mut context = Context::with_env(Arc::clone(&self.environment));
        let references = self.program.references();
        let mut give = |name: &str, value: &dyn Fn() -> Option<Value>| {
            if references.has_variable(name) {
                context.add_variable_from_value(name, value()?);
            }
            Some(())
        };
        let text = |text: Option<&str>| Some(Value::from(text.unwrap_or_default().to_owned()));
        let list = |items: Option<&[String]>| to_value(items.unwrap_or_default()).ok();
        give("consumer", &|| text(caller.and_then(Principal::consumer)))?;
        give("groups", &|| list(caller.map(Principal::groups)))?;
        give("scopes", &|| list(caller.map(Principal::scopes)))?;
        give("claims", &|| to_value(caller.map_or(&Map::new(), Principal::claims)).ok())?;
        give("request", &|| to_value(self.asked(parts)).ok())?;
        give("address", &|| text(Some(&identity.address.to_string())))?;
        give("country", &|| text(identity.place.country.as_ref().map(|country| country.as_str())))?;
        give("asn", &|| Some(Value::from(i64::from(identity.place.system.unwrap_or_default()))))?;
        self.program.execute(&context).ok()
    }

    fn asked<'a>(&self, parts: &'a Parts) -> Asked<'a> {
        let mut query = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if !self.hidden.arguments.iter().any(|hidden| *hidden == name) {
                query.entry(name.into_owned()).or_default().push(value.into_owned());
            }
        }
        let headers = self.headers(&parts.headers);
        Asked { method: parts.method.as_str(), path: parts.uri.path(), query, headers }
    }

    /// Headers by their names in lower case; several of one name joined, as HTTP means them.
    fn headers<'a>(&self, headers: &'a HeaderMap) -> BTreeMap<&'a str, String> {
        let shown =
            headers.keys().filter(|name| !SECRET.contains(name) && !self.hidden.headers.contains(name));
        let joined = shown.map(|name| {
            let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            (name.as_str(), values.collect::<Vec<_>>().join(", "))
        });
        joined.collect()
    }
}

/// Looks for names that nothing is known of, and for loops that could take long; `loops` counts those around `node` over
/// what a request brings, and all.
fn check(
    node: &IdedExpr,
    scope: &mut Vec<String>,
    loops: (usize, usize),
    place: &dyn Fn(u64) -> String,
) -> Result<(), String> {
    let inner: Vec<&IdedExpr> = match &node.expr {
        Expr::Ident(name) if !KNOWN.contains(&name.as_str()) && !scope.contains(name) => {
            let known = KNOWN.join(", ");
            return Err(format!("{}: there is no {name:?}; there are: {known}", place(node.id)));
        }
        Expr::Literal(_) | Expr::Unspecified | Expr::Ident(_) => Vec::new(),
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            entries.flatten().collect()
        }
        Expr::Struct(_) => return Err(format!("{}: there are no messages here", place(node.id))),
        Expr::Comprehension(comprehension) => {
            let it = &**comprehension;
            check(&it.iter_range, scope, loops, place)?;
            let is_written = matches!(it.iter_range.expr, Expr::List(_));
            let loops = (loops.0 + usize::from(!is_written), loops.1 + 1);
            if loops.0 > 1 || loops.1 > LOOPS {
                let message = "goes through one list of the request within another, which could take long";
                return Err(format!("{}: {message}", place(node.id)));
            }
            let outer = scope.len();
            scope.extend([it.iter_var.clone(), it.accu_var.clone()]);
            scope.extend(it.iter_var2.clone());
            let checked = [&it.accu_init, &it.loop_cond, &it.loop_step, &it.result]
                .into_iter()
                .try_for_each(|node| check(node, scope, loops, place));
            scope.truncate(outer);
            return checked;
        }
    };
    inner.into_iter().try_for_each(|node| check(node, scope, loops, place))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;
    use waf_model::observation::ValueKey;

    use super::*;
    use crate::{
        auth::Findings,
        config::Config,
        identity::{Peer, identify},
    };

    fn judge(text: &str, is_known: bool) -> Judgement {
        let hidden =
            Hidden { headers: vec![HeaderName::from_static("x-api-key")], arguments: vec!["key".to_owned()] };
        let policy = Policy::compile(text, hidden).unwrap_or_else(|message| panic!("{text}: {message}"));
        let claims = json!({"tier": "gold", "level": 3, "roles": ["a", "b"], "deep": {"x": null}});
        let findings = Findings {
            consumer: Some("acme".into()),
            groups: vec!["staff".to_owned()],
            scopes: vec!["read".to_owned()],
            claims: Arc::new(claims.as_object().unwrap().clone()),
            ..Findings::default()
        };
        let caller = Principal::new(findings, &"tokens".into(), &ValueKey([1; 16]));
        let peer = Peer {
            address: "192.0.2.7:1".parse().unwrap(),
            listener: "http".into(),
            local: "192.0.2.9:8080".parse().unwrap(),
            tls: None,
            certificate: None,
        };
        let request = Request::get("/orders/7?a=1&a=2&key=hush")
            .header("X-Tenant", "t1")
            .header("x-api-key", "hush")
            .header("authorization", "hush")
            .header("cookie", "hush");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let identity =
            identify(&config, &ValueKey([1; 16]), &peer, &parts.headers, crate::identity::fresh_request_id());
        policy.judge(is_known.then_some(&caller), &identity, &parts)
    }

    #[test]
    fn who_calls_and_what_is_asked_for_decide() {
        for text in [
            "groups.exists(g, g == \"staff\") && request.method in [\"GET\", \"HEAD\"]",
            "consumer == 'acme' && 'read' in scopes && claims.tier == 'gold' && claims.level >= 3",
            "'b' in claims.roles && claims.deep.x == null",
            "request.path.startsWith('/orders/') && request.path.matches('^/orders/[0-9]+$')",
            "request.query.a == ['1', '2'] && request.headers['x-tenant'] == 't1'",
            "address == '192.0.2.7' && country == '' && asn == 0",
            "!has(request.query.key) && !has(request.headers.cookie) && !has(request.headers.authorization)",
            "!('x-api-key' in request.headers)",
            "['staff', 'ops'].exists(wanted, groups.exists(g, g == wanted))",
            "has(claims.tier) ? claims.tier in ['gold'] : false",
        ] {
            assert_eq!(judge(text, true), Judgement::Allowed, "{text}");
        }
        assert_eq!(judge("consumer == 'other'", true), Judgement::Denied);
        assert_eq!(judge("consumer == '' && groups == [] && !has(claims.tier)", false), Judgement::Allowed);
        for text in
            ["claims.none == 'x'", "1", "consumer", "claims.tier > 3", "groups[5] == 'a'", "1 / 0 == 1"]
        {
            assert_eq!(judge(text, true), Judgement::Failed, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let long = format!("consumer == '{}'", "x".repeat(5000));
        let nested = format!("{}true{}", "(".repeat(1000), ")".repeat(1000));
        for (text, expected) in [
            ("groups.exists(", "line 1, column"),
            ("consumer == 'a' && user == 'b'", "column 20: there is no \"user\"; there are: consumer,"),
            ("groups.exists(g, h == g)", "there is no \"h\""),
            ("groups.exists(g, scopes.exists(s, s == g))", "one list of the request within another"),
            ("[1].all(a, [2].all(b, [3].all(c, true)))", "could take long"),
            ("groups.map(g, g + g).exists(x, claims.roles.exists(r, r == x))", "one list of the request"),
            (&long, "longer than"),
            (&nested, "is not a CEL expression"),
        ] {
            let message = Policy::compile(text, Hidden::default()).unwrap_err();
            assert!(message.contains(expected), "{text:.60}: {message}");
        }
    }
}
