//! Identity: who may call, what the upstream learns of it, and that credentials end at the gateway.

use std::{fs, path::Path, process::Stdio};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use tests::{
    client::{Answer, Client},
    gateway::{Gateway, Settings},
    process::binary,
    responder::Responder,
};
use tokio::io::AsyncWriteExt;

mod consumers;
mod guessing;
mod oidc;
mod others;
mod tokens;

/// A gateway in front of an origin that remembers what reaches it.
struct Site {
    origin: Responder,
    gateway: Gateway,
    http: Client,
    directory: tempfile::TempDir,
}

impl Site {
    /// With further keys of the route, and further keys of the file.
    async fn start(route: &[String], more: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let origin = Responder::start(Box::new(|_| Response::new(Full::from("here")))).await.unwrap();
        let mut settings = Settings::new(origin.url());
        settings.route = route.to_vec();
        settings.more = more.to_vec();
        let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
        let http = gateway.client();
        Self { origin, gateway, http, directory }
    }

    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().uri(format!("http://{}{target}", self.gateway.address()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.http.exchange(request.body(Full::default()).unwrap()).await.unwrap()
    }

    async fn status(&self, target: &str, headers: &[(&str, &str)]) -> u16 {
        self.get(target, headers).await.status.as_u16()
    }

    /// What reached the origin last: target and headers.
    fn last(&self) -> (String, HeaderMap) {
        let seen = self.origin.seen();
        let request = seen.last().expect("a request that reached the origin");
        (request.uri().to_string(), request.headers().clone())
    }

    /// The access log so far.
    fn log(&self) -> Vec<serde_json::Value> {
        let log = self.gateway.watch().log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Fails if one of `secrets` stands in a file of the gateway, but for its configuration.
    fn search(&self, secrets: &[&str]) {
        let mut files = Vec::new();
        crate::secrets::files(self.directory.path(), &mut files);
        for file in files.iter().filter(|file| !file.ends_with("portcullis.yaml")) {
            let bytes = fs::read(file).unwrap();
            for secret in secrets {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} in {}", file.display());
            }
        }
    }
}

/// Runs `gateway hash <what>` on `input`; what it printed.
async fn hash(what: &[&str], input: &str) -> String {
    let mut command = tokio::process::Command::new(binary("gateway").unwrap());
    let command = command.arg("hash").args(what).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until `ready`; fails with `what` after 20 seconds.
async fn eventually(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !ready().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}
