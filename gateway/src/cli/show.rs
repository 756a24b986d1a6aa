//! Answers of the management API, in words and tables.

use serde_json::Value;

use crate::{
    cli::output::{Format, say, table},
    clock,
};

/// Prints an answer: as it came, or by `render`.
pub fn print(format: Format, answer: &Value, render: impl Fn(&Value) -> String) {
    match format {
        Format::Json => say(&serde_json::to_string_pretty(answer).unwrap_or_default()),
        Format::Table => say(&render(answer)),
    }
}

/// Blocks in force.
pub fn blocks(answer: &Value) -> String {
    let rows: Vec<_> = items(answer)
        .map(|block| {
            ["client", "scope", "expires", "count", "origin", "reason"].map(|name| text(block, name)).to_vec()
        })
        .collect();
    if rows.is_empty() {
        return "no client is blocked".to_owned();
    }
    table(&["CLIENT", "SCOPE", "UNTIL", "COUNT", "BY", "REASON"], &rows)
}

/// Differences between two configurations: `-` was, `+` is.
pub fn changes(answer: &Value) -> String {
    let mut lines = Vec::new();
    for change in items(answer) {
        let path = text(change, "path");
        for (sign, name) in [("-", "before"), ("+", "after")] {
            lines.extend(change.get(name).map(|value| format!("{sign} {path}: {value}")));
        }
    }
    if lines.is_empty() { "nothing differs".to_owned() } else { lines.join("\n") }
}

/// Entries of the audit log.
pub fn audit(answer: &Value) -> String {
    let rows: Vec<_> = items(answer)
        .map(|line| {
            let mut cells = ["seq", "at", "actor", "action", "object"].map(|name| text(line, name)).to_vec();
            let what = ["before", "after"].map(|name| line.get(name).map(Value::to_string));
            cells.push(match what {
                [None, None] => String::new(),
                [None, Some(after)] => after,
                [Some(before), None] => format!("was {before}"),
                [Some(before), Some(after)] => format!("{before} -> {after}"),
            });
            cells
        })
        .collect();
    if rows.is_empty() {
        return "no entry".to_owned();
    }
    table(&["SEQ", "AT", "ACTOR", "ACTION", "OBJECT", "WHAT"], &rows)
}

/// How a reload ended.
pub fn reload(answer: &Value) -> String {
    match answer.get("refused").and_then(Value::as_str) {
        Some(reason) => format!("refused; the configuration in force stays:\n{reason}"),
        None => format!("in force; {}", changes(answer.get("changes").unwrap_or(&Value::Null))),
    }
}

/// All fields, one a line.
pub fn fields(answer: &Value) -> String {
    let mut lines = Vec::new();
    for item in items(answer) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        flatten("", item, &mut lines);
    }
    lines.join("\n")
}

/// Why clients are blocked.
pub fn block_explanations(answer: &Value) -> String {
    items(answer).map(block_explanation).collect::<Vec<_>>().join("\n\n")
}

/// Why a request was flagged.
pub fn explanation(flagged: &Value) -> String {
    let at = flagged.get("at_ms").and_then(Value::as_u64).map(clock::text).unwrap_or_default();
    let mut lines = vec![
        format!("request   {}", text(flagged, "request_id")),
        format!("at        {at}"),
        format!(
            "what      {} {} on route {}",
            text(flagged, "method"),
            text(flagged, "path"),
            text(flagged, "route")
        ),
        format!("client    {}", text(flagged, "client")),
        format!(
            "verdict   {} (mode {}, answered with {})",
            text(flagged, "verdict"),
            text(flagged, "mode"),
            text(flagged, "status")
        ),
    ];
    let rules: Vec<&Value> = flagged.get("rules").map(items).into_iter().flatten().collect();
    if !rules.is_empty() {
        let (points, threshold) = pair(flagged, "rule_points");
        lines.push(format!(
            "rules     {points} points, rejected from {threshold}{}",
            denial(flagged, "denied")
        ));
        lines.extend(rules.into_iter().flat_map(rule_match));
    }
    let rules: Vec<&Value> = flagged.get("response_rules").map(items).into_iter().flatten().collect();
    if !rules.is_empty() {
        let (points, threshold) = pair(flagged, "response_points");
        lines.push(format!(
            "response  {points} points, withheld from {threshold}{}; not the client's fault",
            denial(flagged, "response_denied")
        ));
        lines.extend(rules.into_iter().flat_map(rule_match));
    }
    reasons(flagged.get("explanation"), &mut lines);
    if !text(flagged, "promise").is_empty() {
        lines.push(format!("promise   {}", text(flagged, "promise")));
    }
    let (level, threshold) = pair(flagged, "evidence");
    lines.push(format!("evidence  {level} against the client after it, blocked from {threshold}"));
    lines.join("\n")
}

/// Rules that matched: which, where, and on what.
pub fn rule_matches(matches: &Value) -> Vec<String> {
    items(matches).flat_map(rule_match).collect()
}

/// The rule that decided on its own, if one did.
pub(super) fn denial(flagged: &Value, name: &str) -> String {
    match flagged.get(name).and_then(|denial| denial.get("rule")) {
        Some(rule) => format!("; rule {} denies", plain(rule)),
        None => String::new(),
    }
}

fn rule_match(rule: &Value) -> [String; 2] {
    [
        format!("  rule {}  {} ({})", text(rule, "id"), text(rule, "message"), text(rule, "severity")),
        format!("    in {}: {}", text(rule, "variable"), text(rule, "fragment")),
    ]
}

/// Entries of the allow list.
pub fn allowed(answer: &Value) -> String {
    let rows: Vec<_> = items(answer).map(|entry| vec![text(entry, "network"), text(entry, "from")]).collect();
    if rows.is_empty() {
        return "nothing is allowed beyond the rules".to_owned();
    }
    table(&["NETWORK", "FROM"], &rows)
}

/// Artifacts.
pub fn models(answer: &Value) -> String {
    let rows: Vec<_> = items(answer)
        .map(|model| {
            let provenance = model.pointer("/header/provenance").unwrap_or(&Value::Null);
            let created = provenance.get("created_ms").and_then(Value::as_u64).map(clock::text);
            vec![
                text(model, "seq"),
                text(model, "state"),
                created.unwrap_or_else(|| text(model, "unreadable")),
                text(provenance, "requests"),
                text(provenance, "clients"),
                text(model, "bytes"),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no model yet: the rules protect; run the trainer to learn this site".to_owned();
    }
    let mut lines = vec![table(&["SEQ", "STATE", "CREATED", "REQUESTS", "CLIENTS", "BYTES"], &rows)];
    lines.extend(items(answer).flat_map(trial_in_words));
    lines.join("\n")
}

/// How the trial of one model stands, or how it ended.
fn trial_in_words(model: &Value) -> Option<String> {
    let seq = text(model, "seq");
    if let Some(reason) = model.get("refused") {
        return Some(format!("model {seq} was refused: {}", plain(reason)));
    }
    let trial = model.get("trial")?;
    let count = |name: &str| text(trial, name);
    let agreement = trial.get("agreement").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
    Some(format!(
        "model {seq} is on trial: {} of {} requests seen; it flags {}, the champion {}, they agree about {agreement:.2} %; \
         disputed clients: {}, of the champion {} (budget {}); reviews against it: {}",
        count("seen"),
        count("of"),
        count("flagged"),
        count("champion_flagged"),
        count("disputed"),
        count("champion_disputed"),
        count("allowed"),
        ["wronged", "lost"].iter().filter_map(|name| trial.get(*name)?.as_u64()).sum::<u64>(),
    ))
}

/// What is in force.
pub fn status(answer: &Value) -> String {
    let rows: Vec<_> = answer
        .get("routes")
        .map(items)
        .into_iter()
        .flatten()
        .map(|route| ["route", "rules", "model", "clients"].map(|name| text(route, name)).to_vec())
        .collect();
    let mut lines = vec![table(&["ROUTE", "RULES", "MODEL", "CLIENTS"], &rows), String::new()];
    let origins: Vec<_> = answer
        .get("upstreams")
        .map(items)
        .into_iter()
        .flatten()
        .map(|origin| {
            ["upstream", "origin", "state", "active", "idle", "ejections"]
                .map(|name| text(origin, name))
                .to_vec()
        })
        .collect();
    if !origins.is_empty() {
        lines.push(table(&["UPSTREAM", "ORIGIN", "STATE", "ACTIVE", "IDLE", "EJECTIONS"], &origins));
        lines.push(String::new());
    }
    lines.extend(certificates(answer));
    lines.extend(promises(answer));
    lines.extend(realised(answer));
    let mut answer = answer.clone();
    let drift = answer.pointer_mut("/model/drift").map(Value::take);
    for name in ["version", "model", "challenger", "store", "blocks", "clients"] {
        if let Some(value) = answer.get(name) {
            flatten(name, value, &mut lines);
        }
    }
    lines.retain(|line| line != "model.drift: ");
    lines.extend(drift.map(|drift| format!("model.drift: {}", drift_in_words(&drift))));
    lines.join("\n")
}

fn drift_in_words(drift: &Value) -> String {
    if drift.is_null() {
        return "too few requests yet to compare traffic with what the model was calibrated on".to_owned();
    }
    let share = drift.get("moved").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
    let most = drift.get("most").map(items).into_iter().flatten().map(|feature| {
        let part = |at: usize| feature.get(at).map(plain).unwrap_or_default();
        format!("{} {}", part(0), part(1))
    });
    format!(
        "{share:.0} % of the features moved (population stability index over 0.25) in {} requests; most: {}",
        text(drift, "requests"),
        most.collect::<Vec<_>>().join(", ")
    )
}

/// When the certificates of listeners end, and what goes wrong with those that are fetched; empty without any.
fn certificates(answer: &Value) -> Vec<String> {
    let all: Vec<&Value> = answer.get("certificates").map(items).into_iter().flatten().collect();
    if all.is_empty() {
        return Vec::new();
    }
    let hosts =
        |one: &Value| one.get("hosts").map(items).into_iter().flatten().map(plain).collect::<Vec<_>>();
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            let expires = one.get("expires").and_then(Value::as_str).unwrap_or("not there yet").to_owned();
            vec![text(one, "listener"), hosts(one).join(" "), text(one, "source"), expires]
        })
        .collect();
    let mut lines = vec![table(&["LISTENER", "CERTIFICATE FOR", "SOURCE", "EXPIRES"], &rows), String::new()];
    for one in all.into_iter().filter(|one| one.get("error").is_some()) {
        let (host, next) = (hosts(one).into_iter().next().unwrap_or_default(), text(one, "next_attempt"));
        lines.push(format!("no new certificate for {host}: {}; tried again at {next}", text(one, "error")));
        lines.push(String::new());
    }
    lines
}

/// What stands behind the model's flags on each route; empty without a model.
fn promises(answer: &Value) -> Vec<String> {
    let routes = answer.get("routes").map(items).into_iter().flatten();
    let promised = routes.filter(|route| route.get("promise").is_some());
    let mut lines: Vec<String> = promised
        .map(|route| format!("promise on {}, as for {}", text(route, "route"), text(route, "promise")))
        .collect();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// What the model did on each route, beside what it promises; empty without a model.
fn realised(answer: &Value) -> Vec<String> {
    let routes: Vec<_> = answer
        .get("routes")
        .map(items)
        .into_iter()
        .flatten()
        .filter_map(|route| Some((text(route, "route"), route.get("realised")?)))
        .collect();
    if routes.is_empty() {
        return Vec::new();
    }
    let rate = |realised: &Value, span: &str| {
        let rate = realised.get(span).unwrap_or(&Value::Null);
        let allowed = rate.get("allowed").and_then(Value::as_f64).unwrap_or(0.0);
        format!("{} of {} (budget {allowed:.1})", text(rate, "flagged"), text(rate, "inspected"))
    };
    let rows: Vec<_> = routes
        .iter()
        .map(|(route, realised)| {
            let open = realised.get("breaker").is_some();
            vec![
                route.clone(),
                rate(realised, "hour"),
                rate(realised, "day"),
                rate(realised, "client_days"),
                text(realised, "disputed"),
                if open { "open" } else { "closed" }.to_owned(),
            ]
        })
        .collect();
    let headings =
        ["ROUTE", "FLAGGED IN AN HOUR", "IN A DAY", "CLIENT-DAYS BLOCKED", "DISPUTED CLIENTS", "BREAKER"];
    let mut lines = vec![table(&headings, &rows), String::new()];
    for (route, realised) in routes {
        let Some(open) = realised.get("breaker") else { continue };
        let since = open.get("since_ms").and_then(Value::as_u64).map(clock::text).unwrap_or_default();
        lines.push(format!("breaker open on {route} since {since}: {}", text(open, "reason")));
        lines.push(format!(
            "  the model only reports there; `gateway breaker reset {route}` lets it act again"
        ));
        lines.push(String::new());
    }
    lines
}

/// What became of breakers.
pub fn breakers(answer: &Value) -> String {
    let word = |breaker: &Value| match breaker.get("was_open").and_then(Value::as_bool) {
        Some(true) => "closed",
        _ => "was not open",
    };
    items(answer)
        .map(|breaker| format!("breaker of {} {}", text(breaker, "route"), word(breaker)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What was done to which blocks.
pub fn done(answer: &Value, what: &str) -> String {
    items(answer)
        .map(|block| format!("{} {what} (scope {})", text(block, "client"), text(block, "scope")))
        .collect::<Vec<_>>()
        .join("\n")
}

fn block_explanation(block: &Value) -> String {
    let mut lines = vec![
        format!("client    {} (scope {})", text(block, "client"), text(block, "scope")),
        format!("blocked   {} until {}", text(block, "last_seen"), text(block, "expires")),
        format!("by        {}, block number {} of this client", text(block, "origin"), text(block, "count")),
        format!("why       {}", text(block, "reason")),
    ];
    if !text(block, "budget").is_empty() {
        lines.push(format!("promise   {}", text(block, "budget")));
    }
    if !text(block, "request_id").is_empty() {
        lines.push(format!("request   {}", text(block, "request_id")));
    }
    let explanation = block.get("explanation").unwrap_or(&Value::Null);
    for rule in explanation.get("rules").map(items).into_iter().flatten() {
        lines.push(format!("  rule {}", plain(rule)));
    }
    reasons(explanation.get("model"), &mut lines);
    let timeline: Vec<&Value> = explanation.get("timeline").map(items).into_iter().flatten().collect();
    if !timeline.is_empty() {
        lines.push("evidence  after each request that added some:".to_owned());
    }
    for entry in timeline {
        let at = entry.get(0).and_then(Value::as_u64).map(clock::text).unwrap_or_default();
        let part = |at: usize| entry.get(at).map(plain).unwrap_or_default();
        lines.push(format!("  {at}  {}  {}", part(1), part(2)));
    }
    lines.join("\n")
}

fn reasons(explanation: Option<&Value>, lines: &mut Vec<String>) {
    let Some(explanation) = explanation.filter(|explanation| !explanation.is_null()) else { return };
    let model = match text(explanation, "model") {
        none if none == "0" => "base".to_owned(),
        seq => seq,
    };
    lines.push(format!("model     {model}"));
    for reason in explanation.get("reasons").map(items).into_iter().flatten() {
        let share = reason.get("share").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
        let (from, to) = pair(reason, "usual");
        lines.push(format!("  {share:.0} %  {}", text(reason, "text")));
        lines.push(format!(
            "    {} is {}, usually {from} to {to}",
            text(reason, "feature"),
            text(reason, "observed")
        ));
    }
}

pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value, name: &str) -> String {
    value.get(name).map(plain).unwrap_or_default()
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // Single-precision numbers come with digits that mean nothing.
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => {
                format!("{:.3}", float).trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn pair(value: &Value, name: &str) -> (String, String) {
    let part = |at: usize| value.get(name).and_then(|pair| pair.get(at)).map(plain).unwrap_or_default();
    (part(0), part(1))
}

fn flatten(name: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(&name, value, lines);
            }
        }
        other => lines.push(format!("{name}: {}", plain(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn models_say_how_their_trial_stands() {
        let shown = models(&json!([
            { "seq": 4, "state": "refused", "refused": "it flags 9 clients" },
            { "seq": 5, "state": "on trial, published", "trial": {
                "seen": 800, "of": 2000, "flagged": 3, "champion_flagged": 4, "agreement": 0.9975,
                "disputed": 1, "champion_disputed": 0, "allowed": 0.8, "wronged": 0, "lost": 0 } },
        ]));
        for part in ["model 4 was refused: it flags 9 clients", "800 of 2000 requests", "agree about 99.75 %"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn the_status_shows_rates_beside_budgets_and_why_a_breaker_is_open() {
        let rate = json!({ "flagged": 7, "inspected": 2000, "allowed": 2.0 });
        let shown = status(&json!({ "routes": [{
            "route": "shop", "rules": "block", "model": "detect", "clients": "block",
            "realised": { "hour": rate, "day": rate, "client_days": rate, "disputed": 7,
                          "breaker": { "since_ms": 0, "reason": "7 clients" } },
        }] }));
        for part in
            ["7 of 2000 (budget 2.0)", "breaker open on shop since 1970", "7 clients", "breaker reset shop"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!status(&json!({ "routes": [{ "route": "shop" }] })).contains("BREAKER"));
        let drift = json!({ "requests": 900, "moved": 0.5, "most": [["params", 1.25]] });
        let shown = status(&json!({ "model": { "seq": 3, "drift": drift } }));
        assert!(
            shown.contains("50 % of the features moved") && shown.contains("most: params 1.25"),
            "{shown}"
        );
    }

    #[test]
    fn an_explanation_names_rule_place_and_fragment() {
        let shown = explanation(&json!({
            "request_id": "r1", "at_ms": 0, "method": "GET", "path": "/", "route": "default",
            "client": "ip:1.2.3.4", "verdict": "rules", "mode": "block", "status": 403,
            "rules": [{ "id": 942100, "message": "SQL injection", "severity": "critical",
                        "variable": "ARGS:id", "fragment": "1' or *" }],
            "rule_points": [5, 5], "explanation": null, "evidence": [1.2345678, 10.0],
        }));
        for part in ["rule 942100", "ARGS:id", "1' or *", "5 points, rejected from 5", "1.235", "from 10"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn a_block_explains_itself() {
        let shown = block_explanations(&json!([{
            "client": "ip:1.2.3.4", "scope": "all", "last_seen": "t1", "expires": "t2", "origin": "gateway",
            "count": 2, "reason": "evidence 12 of 10", "budget": "at most 1e-5", "request_id": "r1",
            "explanation": {
                "rules": ["942100 SQL injection"],
                "model": { "model": 4, "reasons": [{ "feature": "len", "share": 0.5, "observed": 90.0,
                            "usual": [1.0, 20.0], "text": "parameter id is longer than any seen" }] },
                "timeline": [[0, "r0", 3.0], [1, "r1", 12.0]],
            },
        }]));
        for part in ["942100 SQL injection", "50 %", "usually 1 to 20", "r0  3", "number 2", "at most 1e-5"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
