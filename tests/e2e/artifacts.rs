//! Artifacts: swapped under load without a failed request; refused, with the reason, when anything is wrong.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datasets::benign;
use tests::{
    crowd::{self, Pace, Pauses},
    gateway::{Gateway, Settings},
    origin::Origin,
    teacher::{self, Teacher},
};

/// A gateway with model 1 of `teacher` in force.
async fn gateway_with_model(directory: &Path, teacher: &Teacher) -> (Origin, Gateway) {
    let state = directory.join("state");
    teacher.install_keys(&state).unwrap();
    teacher::publish(&state, 1, &teacher.artifact(&teacher.model(1).unwrap()).unwrap()).unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    // What is tested here is the swap, not the trial before it.
    settings.waf.push("challenger: {requests: 0}".to_owned());
    let gateway = Gateway::start(directory, &settings).await.unwrap();
    gateway.wait_model(1, Duration::from_secs(10)).await.unwrap();
    (origin, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_swaps_under_load_fail_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(21).unwrap();
    let (origin, gateway) = gateway_with_model(directory.path(), &teacher).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (http, stop) = (gateway.client(), stop.clone());
        let pace = Pace { requests_each: usize::MAX, pauses: Pauses::Divided(20), arrival: Duration::ZERO };
        tokio::spawn(async move { crowd::run(&http, benign::population(6, 0, 24), &pace, stop).await })
    };
    let model = teacher.model(1).unwrap();
    for seq in 2..=201 {
        let artifact = teacher.artifact(&teacher.renumbered(&model, seq).unwrap()).unwrap();
        teacher::publish(&gateway.state(), seq, &artifact).unwrap();
        gateway.wait_model(seq, Duration::from_secs(10)).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let tally = load.await.unwrap();
    assert_eq!(gateway.metric("portcullis_model_swaps_total").await.unwrap(), 201.0);
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.requests > 1_000, "{} requests are no load", tally.requests);
    let refused: u64 = tally.refused.values().sum();
    assert_eq!(origin.requests(), tally.requests - refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_artifact_never_replaces_a_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(22).unwrap();
    let (_origin, mut gateway) = gateway_with_model(directory.path(), &teacher).await;
    let model = teacher.model(1).unwrap();
    let good = |seq| teacher.artifact(&teacher.renumbered(&model, seq).unwrap()).unwrap();

    let mut damaged = good(10);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x40;
    let truncated = good(11)[..good(11).len() / 3].to_vec();
    let mut unsigned = good(12);
    let end = unsigned.len();
    unsigned[end - 64..].fill(0);
    let stranger = Teacher::new(99).unwrap();
    let foreign = stranger.artifact(&stranger.renumbered(&model, 13).unwrap()).unwrap();
    let misnamed = good(3);
    let hostile = {
        let mut bytes = good(15);
        // A payload length that nobody has memory for.
        bytes[14..22].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes
    };
    let schema = with_schema(&good(16), &teacher);

    let cases: [(u64, &str, Vec<u8>, &[&str]); 7] = [
        (10, "damaged", damaged, &["signature", "checksum"]),
        (11, "truncated", truncated, &["truncated"]),
        (12, "unsigned", unsigned, &["signature"]),
        (13, "signed by a stranger", foreign, &["not trusted"]),
        (14, "another model's bytes", misnamed, &["the artifact says 3"]),
        (15, "hostile length", hostile, &["truncated"]),
        (16, "learned with other features", schema, &["schema"]),
    ];
    for (refused, (seq, what, bytes, reasons)) in (1..).zip(cases) {
        teacher::publish(&gateway.state(), seq, &bytes).unwrap();
        gateway
            .wait_metric("portcullis_model_refused_total", f64::from(refused), Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(gateway.model().await.unwrap(), Some(1), "{what} was put in force");
        let log = gateway.process().log();
        let line =
            log.lines().rfind(|line| line.contains("refused")).expect("a line in the log").to_lowercase();
        assert!(reasons.iter().any(|reason| line.contains(reason)), "{what}: the reason is not said: {line}");
    }

    // A newer good one is taken all the same, and then the old one is refused.
    teacher::publish(&gateway.state(), 20, &good(20)).unwrap();
    gateway.wait_model(20, Duration::from_secs(10)).await.unwrap();
    fs::write(gateway.state().join("models/current"), "1").unwrap();
    gateway.wait_metric("portcullis_model_refused_total", 8.0, Duration::from_secs(10)).await.unwrap();
    assert_eq!(gateway.model().await.unwrap(), Some(20));
    assert!(gateway.process().log().contains("older"));
    assert_eq!(gateway.client().get("/healthz").await.unwrap().status, 200);
}

/// The same artifact, validly signed, whose header names another feature schema.
fn with_schema(artifact: &[u8], teacher: &Teacher) -> Vec<u8> {
    let header_length = u32::from_le_bytes(artifact[10..14].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&artifact[22..22 + header_length]).unwrap();
    header["schema"] = "0123456789abcdef".into();
    let header = header.to_string();
    let mut bytes = artifact[..10].to_vec();
    bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&artifact[14..22]);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&artifact[22 + header_length..artifact.len() - 64]);
    teacher.sign(&mut bytes);
    bytes
}
