//! Login by browser at a real OpenID provider: `oidc-provider` from npm, which `make test` installs below `target`.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use http::{Method, Request, Response};
use http_body_util::Full;
use regex::Regex;
use tests::{
    client::{Answer, Client},
    gateway::{Gateway, Settings},
    ports,
    process::Process,
    responder::Responder,
};

const CLIENT_SECRET: &str = "a secret of the test, longer than it has to be";

/// Starts the provider; its address.
async fn provider(directory: &Path, site: &str) -> (Process, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/oidc");
    assert!(
        root.join("node_modules/oidc-provider").is_dir(),
        "the OpenID provider is not installed in {}: run `make needs-oidc` (it needs node, npm and a network)",
        root.display()
    );
    let port = ports::free().unwrap();
    let mut command = Command::new("node");
    command.current_dir(&root).arg("provider.mjs").arg(port.to_string());
    command.arg(format!("{site}/.portcullis/callback")).arg(format!("{site}/bye"));
    let mut process = Process::spawn("provider", &mut command, directory).unwrap();
    let http = Client::new(([127, 0, 0, 1], port).into());
    let metadata = "/.well-known/openid-configuration";
    process
        .wait_until("serving", Duration::from_secs(60), async || http.get(metadata).await.is_ok())
        .await
        .unwrap();
    (process, format!("http://127.0.0.1:{port}"))
}

/// A browser, as far as this needs one: it keeps cookies for one server, and does not follow by itself.
struct Browser {
    http: Client,
    base: String,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new(address: std::net::SocketAddr) -> Self {
        Self { http: Client::new(address), base: format!("http://{address}"), cookies: BTreeMap::new() }
    }

    async fn send(&mut self, method: Method, target: &str, form: &str) -> Answer {
        let target = target.strip_prefix(&self.base).unwrap_or(target);
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .header("accept", "text/html,*/*")
            .header("cookie", cookies.join("; "));
        if !form.is_empty() {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let answer = self.http.exchange(request.body(Full::from(form.to_owned())).unwrap()).await.unwrap();
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() || line.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    async fn get(&mut self, target: &str) -> Answer {
        self.send(Method::GET, target, "").await
    }
}

fn location(answer: &Answer) -> String {
    let text = answer.headers.get("location").map(|value| value.to_str().unwrap().to_owned());
    text.unwrap_or_else(|| panic!("no way on: {} {:?}", answer.status, answer.body))
}

/// Logs in at the provider as `account` and agrees to everything; where the provider sends the browser in the end.
async fn log_in(at_provider: &mut Browser, start: &str, account: &str) -> String {
    let action_of = Regex::new("action=\"([^\"]+)\"").unwrap();
    let mut next = start.to_owned();
    for _ in 0..20 {
        if !next.starts_with('/') && !next.starts_with(&at_provider.base) {
            return next;
        }
        let page = at_provider.get(&next).await;
        next = if page.status.is_redirection() {
            location(&page)
        } else {
            let html = String::from_utf8_lossy(&page.body).into_owned();
            let action = action_of.captures(&html).unwrap()[1].to_owned();
            let form = if html.contains("value=\"login\"") {
                format!("prompt=login&login={account}&password=anything")
            } else {
                "prompt=consent".to_owned()
            };
            location(&at_provider.send(Method::POST, &action, &form).await)
        };
    }
    panic!("the provider does not come to an end: {next}")
}

#[tokio::test(flavor = "multi_thread")]
async fn people_log_in_by_their_browser_and_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(|_| Response::new(Full::from("here")))).await.unwrap();
    let mut settings = Settings::new(origin.url());
    // The provider has to know the gateway's address, and the gateway the provider's: the gateway's port is chosen here.
    let port = ports::free().unwrap();
    settings.port = Some(port);
    let site = format!("http://127.0.0.1:{port}");
    let (_provider, issuer) = provider(directory.path(), &site).await;
    settings.environment = vec![("CLIENT_SECRET", CLIENT_SECRET.to_owned())];
    settings.route = vec!["auth: {any_of: [people], groups: [staff]}".to_owned()];
    settings.more = vec![format!(
        "auth: {{methods: {{people: {{oidc: {{issuer: \"{issuer}\", client_id: portcullis, client_secret: \"${{CLIENT_SECRET}}\", \
         site: \"{site}\", after_logout: \"{site}/bye\"}}}}}}}}"
    )];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let mut browser = Browser::new(gateway.address());
    let mut at_provider = Browser::new(issuer.trim_start_matches("http://").parse().unwrap());

    // Programs are told no, browsers where to go. The metadata of the provider are there soon after the start.
    assert_eq!(gateway.client().get("/page").await.unwrap().status, 401);
    super::eventually("the provider's metadata", async || browser.get("/page?x=1").await.status == 302).await;
    browser.cookies.clear();
    // A session that somebody else chose is no session, before a login or after it.
    browser.cookies.insert("portcullis-people".to_owned(), "chosen-by-somebody-else".to_owned());
    let start = location(&browser.get("/page?x=1").await);
    for part in ["code_challenge_method=S256", "response_type=code", "state=", "nonce=", "code_challenge="] {
        assert!(start.contains(part), "{start}");
    }
    let login_cookies = browser.cookies.clone();
    let back = log_in(&mut at_provider, &start, "ada").await;
    assert!(back.starts_with(&format!("{site}/.portcullis/callback?code=")), "{back}");

    // Another browser cannot finish this login, nor this one with another state.
    let mut other = Browser::new(gateway.address());
    assert_eq!(other.get(&back).await.status, 401);
    let forged = Regex::new("state=[^&]{4}").unwrap().replace(&back, "state=AAAA").into_owned();
    assert_eq!(browser.get(&forged).await.status, 401);
    let foreign =
        Regex::new("iss=[^&]+").unwrap().replace(&back, "iss=https%3A%2F%2Fevil.example").into_owned();
    assert_ne!(foreign, back);
    assert_eq!(browser.get(&foreign).await.status, 401);

    let done = browser.get(&back).await;
    assert_eq!((done.status.as_u16(), location(&done).as_str()), (302, "/page?x=1"));
    let session = browser.cookies["portcullis-people"].clone();
    assert_ne!(session, "chosen-by-somebody-else");
    assert_eq!(browser.cookies.len(), 1, "what was under way is over: {:?}", browser.cookies);
    assert_eq!(browser.get("/page?x=1").await.status, 200);
    {
        let seen = origin.seen();
        let headers = seen.last().unwrap().headers();
        assert_eq!(
            (&headers["x-consumer-subject"], &headers["x-consumer-groups"]),
            (&"ada".parse().unwrap(), &"staff".parse().unwrap())
        );
        assert!(!headers.contains_key("cookie"), "the session is nobody else's business");
    }

    // The same code again, with everything that was there the first time.
    let mut again = Browser::new(gateway.address());
    again.cookies = login_cookies;
    assert_eq!(again.get(&back).await.status, 401);
    // A changed session, and a login's cookie in its place.
    let mut changed = session.clone().into_bytes();
    changed[60] = if changed[60] == b'A' { b'B' } else { b'A' };
    for forged in [String::from_utf8(changed).unwrap(), again.cookies.values().next().unwrap().clone()] {
        let mut browser = Browser::new(gateway.address());
        browser.cookies.insert("portcullis-people".to_owned(), forged);
        assert_eq!(browser.get("/page").await.status, 302);
    }

    let out = browser.get("/.portcullis/logout").await;
    assert!(location(&out).starts_with(&format!("{issuer}/session/end?")), "{}", location(&out));
    assert!(browser.cookies.is_empty());
    let mut thief = Browser::new(gateway.address());
    thief.cookies.insert("portcullis-people".to_owned(), session.clone());
    assert_eq!(thief.get("/page").await.status, 302, "an ended session stays ended");
    assert_eq!(origin.seen().len(), 1);

    let mut files = Vec::new();
    crate::secrets::files(directory.path(), &mut files);
    for file in files.iter().filter(|file| !file.ends_with("provider.log")) {
        let bytes = std::fs::read(file).unwrap();
        let code = back.split(['=', '&']).nth(1).unwrap();
        for secret in [session.as_str(), code, CLIENT_SECRET] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
    }
}
