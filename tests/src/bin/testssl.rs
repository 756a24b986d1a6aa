//! What testssl.sh makes of the default TLS listener: its findings above LOW, and the grade of the SSL Labs rating guide.
//! Ends with 1 below A or with such a finding.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CrlDistributionPoint, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
};

/// Findings that say nothing about the listener, each with its reason.
const EXCEPTED: &[(&str, &str)] = &[(
    "engine_problem",
    "the openssl of this machine has no GOST ciphers to try with; rustls has none either",
)];

/// Fewest findings of a whole run.
const WHOLE: usize = 80;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("portcullis-testssl-").tempdir()?;
    let origin = Origin::start(Duration::ZERO).await?;
    let mut settings = Settings::new(origin.url());
    let authority = directory.path().join("ca.pem");
    settings.tls = Some(certificate(directory.path(), &authority)?);
    let gateway = Gateway::start(directory.path(), &settings).await?;
    say("testssl.sh looks at the default TLS listener, for about three minutes");
    let report = directory.path().join("report.json");
    let target = format!("https://localhost:{}", gateway.address().port());
    let ended = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--add-ca"])
        .arg(&authority)
        .arg("--jsonfile")
        .arg(&report)
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("testssl is needed (Debian: apt-get install testssl.sh)")?;
    let findings: Vec<Value> = serde_json::from_str(&fs::read_to_string(&report)?)?;
    let is_whole = findings.iter().any(|finding| text(finding, "id") == "scanTime");
    ensure!(is_whole && findings.len() > WHOLE, "testssl.sh did not come to its end ({ended})");

    let mut bad = 0;
    for finding in &findings {
        let (id, severity) = (text(finding, "id"), text(finding, "severity"));
        if ["OK", "INFO", "LOW"].contains(&severity) {
            continue;
        }
        let reason = EXCEPTED.iter().find(|(excepted, _)| *excepted == id);
        bad += usize::from(reason.is_none());
        let reason = reason.map(|(_, reason)| format!(" (does not count: {reason})")).unwrap_or_default();
        say(&format!("{severity:<9} {id}: {}{reason}", text(finding, "finding")));
    }
    let grade = Grade::of(&findings);
    say(&format!("{} findings, {bad} above LOW; grade {}: {}", findings.len(), grade.letter, grade.why));
    let passes = bad == 0 && grade.letter.starts_with('A') && grade.letter != "A-";
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A certificate for localhost as an authority would sign it, and that authority's own in `authority`.
fn certificate(directory: &Path, authority: &Path) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Authority of a test");
    let key = KeyPair::generate()?;
    fs::write(authority, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // Authorities say where they revoke. Nobody fetches it here.
    params.crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["http://crl.example/ca.crl".to_owned()] }];
    let now = std::time::SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + Duration::from_secs(90 * 24 * 3600)).into();
    let made = params.signed_by(&own, &issuer)?;
    let files = (directory.join("cert.pem"), directory.join("key.pem"));
    fs::write(&files.0, made.pem())?;
    fs::write(&files.1, own.serialize_pem())?;
    Ok(files)
}

/// A grade, and what it is made of.
struct Grade {
    letter: String,
    why: String,
}

impl Grade {
    /// That of testssl.sh itself, if it gives one (from 3.2 on). Otherwise by the SSL Labs rating guide (2009q): the
    /// mean of best and worst for protocols (30 %), key exchange (30 %) and ciphers (40 %), with its caps.
    fn of(findings: &[Value]) -> Self {
        let find = |id: &str| findings.iter().find(|finding| text(finding, "id") == id);
        let said = |id: &str| find(id).map_or("", |finding| text(finding, "finding"));
        if let Some(own) = find("overall_grade") {
            return Self { letter: text(own, "finding").to_owned(), why: "as testssl.sh says".to_owned() };
        }
        let offers = |id: &str| said(id).starts_with("offered");
        let protocols =
            [("SSLv2", 0), ("SSLv3", 80), ("TLS1", 90), ("TLS1_1", 95), ("TLS1_2", 100), ("TLS1_3", 100)];
        let protocols = mean(protocols.iter().filter(|(id, _)| offers(id)).map(|(_, score)| *score));
        let is_cipher = |finding: &&Value| text(finding, "id").starts_with("cipher_x");
        let lines: Vec<&str> =
            findings.iter().filter(is_cipher).map(|finding| text(finding, "finding")).collect();
        let field = |line: &str, back: usize| -> u32 {
            line.split_whitespace().rev().nth(back).and_then(|bits| bits.parse().ok()).unwrap_or(0)
        };
        let ciphers = mean(lines.iter().map(|line| match field(line, 1) {
            0 => 0,
            1..128 => 20,
            128..256 => 80,
            256.. => 100,
        }));
        // The last fields are: exchange, its bits, cipher, its bits, name.
        let exchanges = lines.iter().map(|line| curve(field(line, 3)));
        let key = said("cert_keySize").split_whitespace().find_map(|bits| bits.parse().ok()).unwrap_or(0);
        let key = if said("cert_keySize").starts_with("EC") { curve(key) } else { modulus(key) };
        let exchange = exchanges.chain([key]).min().unwrap_or(0);
        let score = (30 * protocols + 30 * exchange + 40 * ciphers) / 100;
        let is_good = |id: &str| find(id).is_some_and(|finding| text(finding, "severity") == "OK");
        let letter = match score {
            _ if !is_good("cert_chain_of_trust") || !is_good("cert_trust") => "T",
            _ if ["heartbleed", "CCS", "ROBOT", "DROWN", "ticketbleed"].iter().any(|id| !is_good(id)) => "F",
            _ if offers("TLS1") || offers("TLS1_1") || !is_good("PFS") => "B",
            80.. if !offers("TLS1_3") => "A-",
            80.. if is_good("HSTS_time") => "A+",
            80.. => "A",
            65..80 => "B",
            50..65 => "C",
            _ => "F",
        };
        let why =
            format!("protocols {protocols}, key exchange {exchange}, ciphers {ciphers}: {score} of 100");
        Self { letter: letter.to_owned(), why }
    }
}

/// The guide's score of a key as strong as a modulus of so many bits.
fn modulus(bits: u32) -> u32 {
    match bits {
        0..512 => 20,
        512..1024 => 40,
        1024..2048 => 80,
        2048..4096 => 90,
        4096.. => 100,
    }
}

/// The same for an elliptic curve, by the strengths of NIST SP 800-57: 224 bits are worth a modulus of 2048, 256 of 3072
/// (X25519 is counted as 253), 384 of 7680.
fn curve(bits: u32) -> u32 {
    match bits {
        0..224 => modulus(1024),
        224..253 => modulus(2048),
        253..384 => modulus(3072),
        384.. => modulus(7680),
    }
}

/// The mean of best and worst; 0 of nothing.
fn mean(scores: impl Iterator<Item = u32> + Clone) -> u32 {
    (scores.clone().max().unwrap_or(0) + scores.min().unwrap_or(0)) / 2
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding.get(key).and_then(Value::as_str).unwrap_or("")
}

fn say(line: &str) {
    // A reader that has gone away is no failure.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
