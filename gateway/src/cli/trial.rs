//! `gateway rules test`: one request, and perhaps its response, made from arguments or files, before the rules of a
//! route.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, anyhow, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use serde_json::{Value, json};
use waf_model::{
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::{Collections, Connection, Context, Evaluation, RuleMatches},
    values::{self, Values},
};

use crate::{
    cli::show,
    clock,
    config::{Limits, OnError, Oversize, Route},
    error::Fault,
    identity, limits,
    waf::{self, decision},
};

mod answer;

use answer::Answer;

/// The verdict of a request that passes.
pub const PASSES: &str = "passes";

/// One request, from arguments or a file.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("tested").required(true).args(["url", "request"])))]
pub struct Trial {
    /// Path and query, or a whole URL: '/search?q=1%27%20or%201=1'.
    #[arg(long, conflicts_with = "request")]
    url: Option<String>,
    /// Method. Default: GET, with a body POST.
    #[arg(short = 'X', long, requires = "url")]
    method: Option<String>,
    /// One header field, 'Name: value'; may be given again.
    #[arg(short = 'H', long = "header", requires = "url")]
    headers: Vec<String>,
    /// The body; an urlencoded form, unless a Content-Type says otherwise.
    #[arg(short = 'd', long = "data", requires = "url")]
    body: Option<String>,
    /// File with a whole request as it is on the wire: request line, header fields, an empty line, the body.
    #[arg(long)]
    request: Option<PathBuf>,
    #[command(flatten)]
    answer: Answer,
}

/// A request to be tested, and why it does not even come to the rules, if it does not.
#[derive(Debug)]
pub struct Tested {
    request: Request<Vec<u8>>,
    response: Option<Response<Vec<u8>>>,
    refused: Option<Fault>,
    limits: Limits,
}

impl Trial {
    /// The request, checked against `limits` as one on the wire is.
    ///
    /// # Errors
    /// It cannot be read as a request at all.
    pub fn request(&self, limits: &Limits) -> anyhow::Result<Tested> {
        let request = match (&self.request, &self.url) {
            (Some(file), _) => {
                let name = file.display().to_string();
                let bytes = fs::read(file).with_context(|| name.clone())?;
                parse(&bytes).with_context(|| name)?
            }
            (None, Some(url)) => self.assemble(url)?,
            (None, None) => bail!("say what to test: --url '/path?query' or --request FILE"),
        };
        let too_large = request.body().len() as u64 > limits.body_bytes;
        let refused = limits::check(limits, &request).err().or(too_large.then_some(Fault::BodyTooLarge));
        Ok(Tested { request, response: self.answer.response()?, refused, limits: limits.clone() })
    }

    fn assemble(&self, url: &str) -> anyhow::Result<Request<Vec<u8>>> {
        let body = self.body.clone().unwrap_or_default().into_bytes();
        let method = match (&self.method, &self.body) {
            (Some(method), _) => method.as_str(),
            (None, Some(_)) => "POST",
            (None, None) => "GET",
        };
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let (name, value) = field(line.as_bytes())?;
            headers.append(name, value);
        }
        if self.body.is_some() && !headers.contains_key(header::CONTENT_TYPE) {
            headers
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        // What every ordinary client sends.
        for (name, value) in [(header::USER_AGENT, "Mozilla/5.0"), (header::ACCEPT, "*/*")] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        complete(method, url, headers, body)
    }
}

/// Reads a request as it is on the wire; lines may end in LF alone.
fn parse(bytes: &[u8]) -> anyhow::Result<Request<Vec<u8>>> {
    let (first, mut headers, body) = message(bytes)?;
    let mut words = first.split(' ').filter(|word| !word.is_empty());
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("line 1 is no request line; write it as GET /path HTTP/1.1");
    };
    // The body is as long as the file says, whatever the header does.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    complete(method, target, headers, body)
}

/// The first line, the header fields and the body of a message.
fn message(bytes: &[u8]) -> anyhow::Result<(String, HeaderMap, Vec<u8>)> {
    let mut rest = bytes;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = tail.get(1..).unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line)
    };
    let first = String::from_utf8_lossy(line()).into_owned();
    let mut headers = HeaderMap::new();
    loop {
        match line() {
            [] => return Ok((first, headers, rest.to_vec())),
            text => {
                let (name, value) = field(text)?;
                headers.append(name, value);
            }
        }
    }
}

fn field(line: &[u8]) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let wrong = || anyhow!("`{}` is no header field; write Name: value", String::from_utf8_lossy(line));
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
    let (name, value) = line.split_at_checked(colon).ok_or_else(wrong)?;
    let name = HeaderName::from_bytes(name).map_err(|_| wrong())?;
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    Ok((name, HeaderValue::from_bytes(value).map_err(|_| wrong())?))
}

fn complete(
    method: &str,
    target: &str,
    mut headers: HeaderMap,
    body: Vec<u8>,
) -> anyhow::Result<Request<Vec<u8>>> {
    let uri: Uri = target.parse().map_err(|_| {
        anyhow!("`{target}` is no request target; write spaces as %20 and other bytes likewise")
    })?;
    let host = uri.authority().map_or("localhost", |authority| authority.as_str());
    let host = HeaderValue::from_str(host)?;
    headers.entry(header::HOST).or_insert(host);
    if !body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut request = Request::new(body);
    *request.method_mut() =
        Method::from_bytes(method.as_bytes()).map_err(|_| anyhow!("`{method}` is no method"))?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// What the rules of `route` make of a request and its response, in mode `block`.
pub fn run(route: &Route, tested: Tested) -> Value {
    let Tested { request, response, refused, limits } = tested;
    let mut headers = request.headers().clone();
    identity::sanitize(&mut headers);
    let fields: Vec<Header<'_>> =
        headers.iter().map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() }).collect();
    let extent = match request.body().len() > limits.inspect_bytes {
        true => BodyExtent::Truncated,
        false => BodyExtent::Complete,
    };
    let inspected = match (extent, route.oversize) {
        (BodyExtent::Complete, _) => request.body().len(),
        (BodyExtent::Truncated, Oversize::InspectPrefix | Oversize::Reject) => limits.inspect_bytes,
        (BodyExtent::Truncated, Oversize::Pass) => 0,
    };
    let view = RequestView {
        method: request.method().as_str(),
        path: request.uri().path().as_bytes(),
        query: request.uri().query().map(str::as_bytes),
        protocol: "HTTP/1.1",
        headers: &fields,
        body: BodyView { bytes: request.body().get(..inspected).unwrap_or_default(), extent },
        client_address: "192.0.2.1",
    };
    let values = Values::extract(&view, &values::Limits::default());
    let (request_id, _) = identity::fresh_request_id();
    let collections = Collections::default();
    let context = Context {
        now_ms: clock::now_ms(),
        request_id: &request_id,
        collections: &collections,
        connection: Connection::default(),
    };
    let Evaluation { matches: found, carry } = route.rules.set.evaluate(&context, &view, &values);
    let blind_spot = waf::blind_spot(&view, &values.findings).filter(|_| route.on_error == OnError::Block);
    let fault = match (&refused, blind_spot) {
        (Some(fault), _) => Some(fault.clone()),
        _ if extent == BodyExtent::Truncated && route.oversize == Oversize::Reject => {
            Some(Fault::BodyTooLarge)
        }
        _ if decision::rules_reject(&found, route.inbound_threshold) => Some(Fault::Rejected),
        (None, Some(finding)) => Some(Fault::Uninspectable(finding)),
        (None, None) => None,
    };
    let why = fault.as_ref().map(|fault| why(fault, &found, route));
    // The upstream never sees what is rejected.
    let response = response.filter(|_| fault.is_none());
    let judged =
        response.map(|response| answer::judge(route, &limits, &context, carry, (request.method(), response)));
    let fault = fault.or(judged.as_ref().filter(|judged| judged.withheld).map(|_| Fault::Rejected));
    let (response, withheld) = judged
        .map_or((Value::Null, None), |judged| (judged.shown, Some(judged.why).filter(|_| judged.withheld)));
    json!({
        "verdict": if fault.is_some() { "rejected" } else { PASSES },
        "status": fault.as_ref().map(|fault| fault.status().as_u16()),
        "why": why.or(withheld),
        "route": route.name,
        "mode": crate::admin::status::mode_name(route.mode),
        "rule_sets": route.rules.names,
        "paranoia": route.rules.paranoia,
        "points": found.weight(),
        "threshold": route.inbound_threshold,
        "denied": found.denied,
        "findings": values.findings,
        "matches": found.matches,
        "response": response,
    })
}

fn why(fault: &Fault, found: &RuleMatches, route: &Route) -> String {
    match (fault, &found.denied) {
        (Fault::Rejected, Some(denial)) => format!("rule {} denies", denial.rule),
        (Fault::Rejected, None) => {
            format!("{} points, rejected from {}", found.points, route.inbound_threshold)
        }
        (Fault::Uninspectable(_), _) => format!("a part cannot be inspected: {}", fault.name()),
        _ => format!("refused before the rules: {}", fault.name()),
    }
}

/// The outcome in words.
pub fn show(outcome: &Value) -> String {
    let mut lines = vec![match show::text(outcome, "status").as_str() {
        "" => PASSES.to_owned(),
        status => format!("rejected with {status}: {}", show::text(outcome, "why")),
    }];
    let sets: Vec<String> =
        outcome.get("rule_sets").map(show::items).into_iter().flatten().map(show::plain).collect();
    lines.push(format!(
        "route     {} (mode {}), rules {}, paranoia level {}",
        show::text(outcome, "route"),
        show::text(outcome, "mode"),
        sets.join(", "),
        show::text(outcome, "paranoia")
    ));
    lines.push(format!(
        "rules     {} points, rejected from {}{}",
        show::text(outcome, "points"),
        show::text(outcome, "threshold"),
        show::denial(outcome, "denied")
    ));
    lines.extend(outcome.get("matches").map(show::rule_matches).unwrap_or_default());
    let findings: Vec<String> =
        outcome.get("findings").map(show::items).into_iter().flatten().map(show::plain).collect();
    if !findings.is_empty() {
        lines.push(format!("form      {}", findings.join(", ")));
    }
    if let Some(response) = outcome.get("response").filter(|response| !response.is_null()) {
        lines.push(format!(
            "response  status {}, body inspected: {}; {} points, withheld from {}{}",
            show::text(response, "status"),
            show::text(response, "body_inspected"),
            show::text(response, "points"),
            show::text(response, "threshold"),
            show::denial(response, "denied")
        ));
        lines.extend(response.get("matches").map(show::rule_matches).unwrap_or_default());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Config;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        trial: Trial,
    }

    fn outcome(arguments: &[&str]) -> Value {
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let line = Line::try_parse_from(["test"].iter().chain(arguments)).unwrap();
        run(&config.routes[0], line.trial.request(&config.limits).unwrap())
    }

    #[test]
    fn an_attack_is_rejected_wherever_it_stands() {
        for arguments in [
            &["--url", "/?id=1%27%20or%201=1--%20-"][..],
            &["--url", "http://shop.example/", "-d", "id=1' or 1=1-- -"],
            &[
                "--url",
                "/",
                "-X",
                "PUT",
                "-H",
                "content-type: application/json",
                "-d",
                r#"{"id":"1' or 1=1-- -"}"#,
            ],
            &["--url", "/", "-H", "Cookie: id=1' or 1=1-- -"],
        ] {
            let outcome = outcome(arguments);
            assert_eq!(
                (&outcome["verdict"], &outcome["status"]),
                (&"rejected".into(), &403.into()),
                "{outcome}"
            );
            let shown = show(&outcome);
            assert!(shown.contains("rejected with 403") && shown.contains("or 1=1"), "{shown}");
        }
        let harmless = outcome(&["--url", "/?id=1"]);
        assert_eq!(
            (&harmless["verdict"], harmless["matches"].as_array().unwrap().len()),
            (&PASSES.into(), 0)
        );
        assert!(show(&harmless).starts_with("passes\n"), "{}", show(&harmless));
    }

    #[test]
    fn what_never_comes_to_the_rules_is_told_apart() {
        let long = format!("/{}", "x".repeat(9000));
        let outcome = outcome(&["--url", &long]);
        assert_eq!(
            (&outcome["status"], &outcome["why"]),
            (&414.into(), &"refused before the rules: uri_too_long".into())
        );
    }

    #[test]
    fn a_response_is_tested_too() {
        let error = "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version";
        let leaky = outcome(&["--url", "/", "--status", "500", "--response-data", error]);
        assert_eq!((&leaky["verdict"], &leaky["status"]), (&"rejected".into(), &403.into()), "{leaky}");
        let shown = show(&leaky);
        assert!(shown.starts_with("rejected with 403: the response has "), "{shown}");
        let expected = ["response  status 500, body inspected: whole; ", "rule 1000900", "RESPONSE_STATUS"];
        assert!(expected.iter().all(|part| shown.contains(part)), "{shown}");
        let image = ["--url", "/", "--response-header", "Content-Type: image/png", "--response-data", error];
        let image = outcome(&image);
        assert_eq!((&image["verdict"], &image["response"]["body_inspected"]), (&PASSES.into(), &"no".into()));
        let rejected =
            outcome(&["--url", "/?id=1' or 1=1-- -".replace(' ', "%20").as_str(), "--status", "200"]);
        assert_eq!(rejected["response"], Value::Null, "the upstream is not asked");

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("response");
        fs::write(&file, format!("HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\n{error}")).unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(outcome(&["--url", "/", "--response", file])["verdict"], "rejected");
        fs::write(file, "GET / HTTP/1.1\r\n\r\n").unwrap();
        let line = Line::try_parse_from(["test", "--url", "/", "--response", file]).unwrap();
        let limits = Config::quick("http://127.0.0.1:1", None, None, None).unwrap().limits;
        let message = format!("{:#}", line.trial.request(&limits).unwrap_err());
        assert!(message.contains("no status line"), "{message}");
    }

    #[test]
    fn a_request_is_read_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("request");
        fs::write(&file, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\nContent-Type: text/plain\r\n\r\nid=1' or 1=1-- -").unwrap();
        assert_eq!(outcome(&["--request", file.to_str().unwrap()])["verdict"], "rejected");
        let parsed = parse(b"GET /x?y HTTP/1.1\nHost: b\nA: 1\nA: 2").unwrap();
        assert_eq!((parsed.uri().query(), parsed.headers().get_all("a").iter().count()), (Some("y"), 2));
        assert!(parse(b"nonsense").is_err() && parse(b"GET / HTTP/1.1\nno field\n\n").is_err());
    }
}
