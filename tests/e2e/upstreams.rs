//! The way to the origins: HTTP versions, TLS both ways, connections that are kept and replaced.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tests::gateway::Gateway;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// An origin that says how it was reached, and counts its connections.
struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    async fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            // A handshake that fails is what some of the tests are about.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream).await;
                            }
                        }
                        None => serve(stream).await,
                    }
                });
            }
        });
        Self { address, connections }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let service = service_fn(|request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        let size = body.collect().await?.to_bytes().len();
        let field = parts.headers.get(header::HOST).map(|value| value.to_str().unwrap().to_owned());
        let authority = parts.uri.authority().map(ToString::to_string);
        let text = format!("{:?} {:?} {size}", parts.version, field.or(authority).unwrap());
        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(text))))
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// An authority with a certificate for localhost and one for a client, as files.
struct Authority {
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        Self { ca }
    }

    fn sign(&self, name: &str, directory: &Path) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &*self.ca).unwrap();
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self, name: &str, directory: &Path, alpn: &[&[u8]], asks: bool) -> ServerConfig {
        let chain: Vec<_> = CertificateDer::pem_file_iter(directory.join(format!("{name}.pem")))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key"))).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = ServerConfig::builder();
        let builder = match asks {
            true => builder
                .with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build().unwrap()),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

async fn get(gateway: &Gateway, path: &str) -> (u16, String) {
    let answer = gateway.client().get(path).await.unwrap();
    (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_verified_and_speak_what_they_agree_on() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let authority = Authority::new();
    authority.sign("localhost", place);
    authority.sign("gateway", place);
    fs::write(place.join("ca.pem"), authority.ca.pem()).unwrap();
    let server = |alpn: &[&[u8]], asks| Some(authority.server("localhost", place, alpn, asks));

    let both = Origin::start(server(&[b"h2", b"http/1.1"], false)).await;
    let old = Origin::start(server(&[], false)).await;
    let strict = Origin::start(server(&[b"h2"], true)).await;
    let clear = Origin::start(None).await;
    let ca = format!("ca: {}", place.join("ca.pem").display());
    let identity = format!(
        "certificate: {}, key: {}",
        place.join("gateway.pem").display(),
        place.join("gateway.key").display()
    );
    let port = |origin: &Origin| origin.address.port();
    let mut yaml = "upstreams:\n".to_owned();
    for (name, url, more) in [
        ("both", format!("https://localhost:{}", port(&both)), format!("tls: {{{ca}}}")),
        ("only_h1", format!("https://localhost:{}", port(&both)), format!("protocol: h1\n    tls: {{{ca}}}")),
        ("old", format!("https://localhost:{}", port(&old)), format!("tls: {{{ca}}}")),
        ("stranger", format!("https://localhost:{}", port(&both)), "protocol: auto".to_owned()),
        ("misnamed", format!("https://127.0.0.1:{}", port(&both)), format!("tls: {{{ca}}}")),
        (
            "renamed",
            format!("https://127.0.0.1:{}", port(&both)),
            format!("tls: {{{ca}, server_name: localhost}}"),
        ),
        ("trusting", format!("https://127.0.0.1:{}", port(&both)), "tls: {verify: off}".to_owned()),
        ("shown", format!("https://localhost:{}", port(&strict)), format!("tls: {{{ca}, {identity}}}")),
        ("hidden", format!("https://localhost:{}", port(&strict)), format!("tls: {{{ca}}}")),
        ("clear", format!("http://localhost:{}", port(&clear)), "protocol: h2".to_owned()),
    ] {
        yaml.push_str(&format!("  {name}:\n    origins: [{{url: \"{url}\"}}]\n    {more}\n"));
    }
    yaml.push_str("routes:\n");
    for name in
        ["both", "only_h1", "old", "stranger", "misnamed", "renamed", "trusting", "shown", "hidden", "clear"]
    {
        yaml.push_str(&format!("  - {{name: {name}, match: {{paths: [/{name}]}}, upstream: {name}}}\n"));
    }
    let gateway = Gateway::start_with(place, &yaml).await.unwrap();
    for (path, expected) in [
        ("/both", format!("HTTP/2.0 \"localhost:{}\" 0", port(&both))),
        ("/only_h1", format!("HTTP/1.1 \"localhost:{}\" 0", port(&both))),
        ("/old", format!("HTTP/1.1 \"localhost:{}\" 0", port(&old))),
        ("/renamed", format!("HTTP/2.0 \"127.0.0.1:{}\" 0", port(&both))),
        ("/trusting", format!("HTTP/2.0 \"127.0.0.1:{}\" 0", port(&both))),
        ("/shown", format!("HTTP/2.0 \"localhost:{}\" 0", port(&strict))),
        ("/clear", format!("HTTP/2.0 \"localhost:{}\" 0", port(&clear))),
    ] {
        // Twice: over a fresh connection, and over the kept one.
        for _ in 0..2 {
            assert_eq!(get(&gateway, path).await, (200, expected.clone()), "{path}");
        }
    }
    assert_eq!((clear.connections.load(Ordering::Relaxed), old.connections.load(Ordering::Relaxed)), (1, 1));
    for path in ["/stranger", "/misnamed", "/hidden"] {
        assert_eq!(get(&gateway, path).await.0, 502, "{path}");
    }
}
