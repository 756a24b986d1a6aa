//! TLS of a listener, by real handshakes: which certificate whom is shown, what is stapled, which versions are spoken,
//! and what is said about files that do not fit.

use std::{fs, path::Path, time::Duration};

use rcgen::{CertificateParams, KeyPair, SerialNumber, date_time_ymd};
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use tests::{
    gateway::{Gateway, Settings},
    handshake::Handshaker,
    origin::Origin,
};

/// A certificate in files of its own, and the same in DER.
struct Made {
    yaml: String,
    der: Vec<u8>,
}

fn make(directory: &Path, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    let made = params.self_signed(&key).unwrap();
    let (certificate, key_file) =
        (directory.join(format!("{file}.pem")), directory.join(format!("{file}.key")));
    fs::write(&certificate, made.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    Made {
        yaml: format!("certificate: {}, key: {}", certificate.display(), key_file.display()),
        der: made.der().to_vec(),
    }
}

/// One element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let mut element = vec![tag];
    match length {
        0..=127 => element.push(length as u8),
        128..=255 => element.extend([0x81, length as u8]),
        _ => element.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    element.extend(content);
    element
}

/// A response (RFC 6960, 4.2.1) that says "good" of the certificate with this serial number. It is as stapled as any:
/// only clients verify signatures.
fn ocsp(serial: u8, next_update: &str) -> Vec<u8> {
    let sha1 = der(0x30, &[&[6, 5, 0x2b, 0x0e, 3, 2, 0x1a]]);
    let hash = der(4, &[&[7; 20]]);
    let id = der(0x30, &[&sha1, &hash, &hash, &der(2, &[&[serial]])]);
    let now = der(0x18, &[b"20260101000000Z"]);
    let next = der(0xa0, &[&der(0x18, &[next_update.as_bytes()])]);
    let single = der(0x30, &[&id, &[0x80, 0], &now, &next]);
    let responder = der(0xa2, &[&der(4, &[&[7; 20]])]);
    let data = der(0x30, &[&responder, &now, &der(0x30, &[&single])]);
    let ecdsa = der(0x30, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let basic = der(0x30, &[&data, &ecdsa, &der(3, &[&[0; 65]])]);
    let kind = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let bytes = der(0xa0, &[&der(0x30, &[&kind, &der(4, &[&basic])])]);
    der(0x30, &[&[0x0a, 1, 0], &bytes])
}

async fn start(directory: &Path, tls: &str, origin: &Origin) -> Gateway {
    let mut settings = Settings::new(origin.url());
    settings.listener = vec![format!("tls: {{{tls}}}"), "sni: any".to_owned()];
    Gateway::start(directory, &settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_is_shown_its_certificate_with_what_is_stapled_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let shop = make(path, "shop", &["shop.example"], |params| {
        params.serial_number = Some(SerialNumber::from_slice(&[77]));
    });
    let wild = make(path, "wild", &["*.api.example", "api.example"], |_| {});
    let staple = path.join("shop.ocsp");
    fs::write(&staple, ocsp(77, "20991231000000Z")).unwrap();
    let tls = format!("certificates: [{{{}, ocsp: {}}}, {{{}}}]", shop.yaml, staple.display(), wild.yaml);
    let gateway = start(path, &tls, &origin).await;
    let address = gateway.address();

    for (versions, version) in
        [(&[&TLS12][..], ProtocolVersion::TLSv1_2), (&[&TLS13], ProtocolVersion::TLSv1_3)]
    {
        let client = || Handshaker::new(versions).unwrap();
        for (name, expected, stapled) in [
            ("shop.example", &shop, ocsp(77, "20991231000000Z")),
            ("v1.api.example", &wild, Vec::new()),
            ("api.example", &wild, Vec::new()),
            ("other.example", &shop, ocsp(77, "20991231000000Z")),
        ] {
            let shown = client().ask(address, name).await.unwrap();
            assert_eq!(shown.certificate, expected.der, "{name}");
            assert_eq!(shown.staple, stapled, "{name}");
            assert_eq!(shown.version, version);
            assert!(shown.answer.starts_with("HTTP/1.1 200"), "{}", shown.answer);
        }
        // Whoever comes again does not need all of it.
        let again = client();
        let resumed = async || again.ask(address, "shop.example").await.unwrap().is_resumed;
        assert!(!resumed().await);
        assert!(resumed().await);
        // But a new configuration asks everybody anew: it may trust other clients.
        let (code, text) = gateway.command(&["reload"]).await.unwrap();
        assert_eq!(code, 0, "{text}");
        assert!(!resumed().await);
        assert!(resumed().await);
    }

    // All files are taken anew together: another certificate for one name, another response for the other.
    let wild = make(path, "wild", &["api.example"], |_| {});
    fs::write(&staple, ocsp(77, "20981231000000Z")).unwrap();
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    let client = Handshaker::new(&[&TLS13]).unwrap();
    assert_eq!(client.ask(address, "api.example").await.unwrap().certificate, wild.der);
    assert_eq!(client.ask(address, "shop.example").await.unwrap().staple, ocsp(77, "20981231000000Z"));
    assert_eq!(client.ask(address, "v1.api.example").await.unwrap().certificate, shop.der);
    // A staple that is for another certificate is refused, and what is served stays.
    fs::write(&staple, ocsp(76, "20991231000000Z")).unwrap();
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert!(code == 1 && text.contains("for another certificate"), "{code}: {text}");
    let shown = Handshaker::new(&[&TLS13]).unwrap().ask(address, "shop.example").await.unwrap();
    assert_eq!(shown.staple, ocsp(77, "20981231000000Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let made = make(path, "shop", &["shop.example"], |_| {});
    let gateway = start(path, &format!("{}, min_version: \"1.3\"", made.yaml), &origin).await;
    let old = Handshaker::new(&[&TLS12]).unwrap().ask(gateway.address(), "shop.example").await;
    let refused = format!("{:?}", old.unwrap_err());
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    let new = Handshaker::new(&[&TLS12, &TLS13]).unwrap();
    let shown = new.ask(gateway.address(), "shop.example").await.unwrap();
    assert_eq!((shown.certificate, shown.version), (made.der, ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn files_that_do_not_fit_are_named_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let a = make(path, "a", &["a.example"], |_| {});
    let b = make(path, "b", &["b.example"], |_| {});
    let nameless = make(path, "nameless", &[], |_| {});
    let old = make(path, "old", &["old.example"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 2, 3);
    });
    let file = |name: &str| path.join(name).display().to_string();
    fs::write(path.join("bad.ocsp"), fs::read(path.join("a.pem")).unwrap()).unwrap();
    let crossed = format!("certificate: {}, key: {}", file("a.pem"), file("b.key"));
    let check = async |listeners: String| {
        let config = path.join("portcullis.yaml");
        let routes = "routes: [{upstreams: [{url: \"http://127.0.0.1:1\"}]}]";
        fs::write(&config, format!("version: 1\nlisteners:\n{listeners}\n{routes}\n")).unwrap();
        let mut command = tokio::process::Command::new(tests::process::binary("gateway").unwrap());
        let output = command.args(["check", "--config"]).arg(&config).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, text) = check(format!(
        "  - {{name: one, address: \"0.0.0.0:1\", tls: {{certificates: [\n    {{{}}},\n    {{{crossed}}},\n    {{{}}},\n    {{{}, ocsp: {}}}]}}}}\n  \
         - {{name: two, address: \"0.0.0.0:2\", tls: {{{}, certificates: [{{{}}}]}}}}\n  \
         - {{name: three, address: \"0.0.0.0:3\", tls: {{certificates: [{{certificate: x.pem}}], min_version: 1.1}}}}",
        a.yaml, nameless.yaml, b.yaml, file("bad.ocsp"), a.yaml, b.yaml
    ))
    .await;
    assert_ne!(code, 0);
    for expected in [
        ":5: listeners[0].tls.certificates[1]: certificate and key cannot be used together",
        ":6: listeners[0].tls.certificates[2]: names no host",
        ":7: listeners[0].tls.certificates[3]: ",
        "bad.ocsp: holds no OCSP response in DER",
        ":8: listeners[1].tls: names files twice",
        ":9: listeners[2].tls.certificates[0]: needs \"certificate\" and \"key\"",
        ":9: listeners[2].tls.min_version: ",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let (code, text) = check(format!("  - {{address: \"0.0.0.0:1\", tls: {{{}}}}}", old.yaml)).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(":3: listeners[0].tls: ") && text.contains("expired at 2021-02-03T00:00"),
        "{text}"
    );
}
