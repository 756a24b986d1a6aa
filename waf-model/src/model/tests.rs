//! A small model, learned by hand, and what it says of normal and strange requests; and its artifact.

use ed25519_dalek::SigningKey;

use super::{
    Certificate, Model, RawModel, RawProvenance,
    calibration::{RawCalibration, Standing},
    clusters::RawClusters,
    groups::RawGroups,
};
use crate::{
    artifact::{self, ArtifactError, RawGolden},
    client::{ClientVector, ClientWindow, ResponseSummary},
    features::{FEATURES, TABLE, extract},
    observation::{Observation, ValueKey},
    profile::{Profiles, builder::ProfileBuilder},
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::RuleMatches,
    values::{Limits, Values},
};

const KEY: ValueKey = ValueKey([9; 16]);

fn observe(target: &str) -> Observation {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = RequestView {
        method: "GET",
        path: path.as_bytes(),
        query: Some(query.as_bytes()),
        protocol: "HTTP/1.1",
        headers: &[
            Header { name: "accept", value: b"text/html" },
            Header { name: "user-agent", value: b"Browser/1" },
        ],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "192.0.2.1",
    };
    let values = Values::extract(&request, &Limits::default());
    Observation::of(&request, &values, &RuleMatches::default(), &KEY)
}

/// Requests of a shop's visitors: an order page, and a search with a few sort orders.
fn clean(index: u64) -> Observation {
    let words = ["red shoes", "blue hat", "green socks", "old book", "new lamp", "small table"];
    let word = words[index as usize % words.len()].replace(' ', "+");
    let sort = ["price", "name", "date"][index as usize % 3];
    match index % 4 {
        0 => observe(&format!("/orders/{}", 10_000 + index * 37)),
        _ => observe(&format!("/search?q={word}&sort={sort}&page={}", 1 + index % 9)),
    }
}

fn profiles() -> Profiles {
    let mut builder = ProfileBuilder::default();
    for index in 0..400 {
        builder.learn(&clean(index), index << 20);
    }
    builder.finish().unwrap()
}

fn one_cluster(rows: &[Vec<f32>], floors: &[f32]) -> RawClusters {
    let n = rows.len() as f32;
    let column = |j: usize| rows.iter().map(move |row| row[j]);
    let centers: Vec<f32> = (0..floors.len()).map(|j| column(j).sum::<f32>() / n).collect();
    let scales = (0..floors.len())
        .map(|j| (column(j).map(|x| (x - centers[j]).powi(2)).sum::<f32>() / n).sqrt().max(floors[j]))
        .collect();
    let usual = (0..floors.len())
        .map(|j| (column(j).fold(f32::MAX, f32::min), column(j).fold(f32::MIN, f32::max)))
        .collect();
    RawClusters { dimensions: floors.len(), centers, scales, usual, mass: vec![1.0] }
}

fn raw_model() -> RawModel {
    let profiles = profiles();
    let rows: Vec<Vec<f32>> = (0..400).map(|i| extract(&clean(i), &profiles).vector.0.to_vec()).collect();
    let requests = one_cluster(&rows, &TABLE.map(|feature| feature.floor));
    let certificate =
        Certificate { budget: 0.01, confidence: 0.95, n: 400, threshold: 8.0, standing: Standing::Certified };
    RawModel {
        seq: 3,
        value_key: KEY.0,
        provenance: RawProvenance::default(),
        profiles: (&profiles).into(),
        requests,
        clients: None,
        request_calibration: RawCalibration::from_distances(
            (0..400).map(|i| 1.0 + i as f32 * 0.005).collect(),
        ),
        client_calibration: None,
        request_certificate: certificate,
        request_groups: RawGroups {
            routes: vec![("shop".to_owned(), Certificate { threshold: 5.0, ..certificate })],
            others: Some(certificate),
        },
        client_certificate: certificate,
        baseline: Vec::new(),
    }
}

fn model() -> Model {
    raw_model().try_into().unwrap()
}

#[test]
fn strange_requests_are_far_and_clean_ones_near() {
    let model = model();
    let distance = |target: &str| model.score(&observe(target), &ClientVector::UNKNOWN).request_distance;
    let clean = distance("/search?q=blue+hat&sort=price&page=4").max(distance("/orders/17240"));
    for strange in [
        "/search?q=blue+hat&sort=prise&page=4",
        "/search?q=blue+hat&sort=price&page=-1",
        "/search?q=blue%00hat&sort=price&page=4",
        "/search?q=blue+hat&sort=price&page=4&debug=1",
        "/search?q=hat%27%29%3B&sort=price&page=4",
        "/orders/17239%27",
        "/backup/",
        "/search",
    ] {
        assert!(distance(strange) > clean + 1.0, "{strange}: {} against {clean}", distance(strange));
    }
}

#[test]
fn an_explanation_names_the_parameter_and_what_is_strange_about_it() {
    let strange = observe("/search?q=%7B%7B7*7%7D%7D&sort=price&page=4");
    let explanation = model().explain(&strange, &ClientVector::UNKNOWN);
    let text: Vec<&str> = explanation.reasons.iter().map(|reason| reason.text.as_str()).collect();
    assert!(text.iter().any(|text| text.contains("query parameter `q`") && text.contains('{')), "{text:?}");
    let total: f32 = explanation.reasons.iter().map(|reason| reason.share).sum();
    assert!(total > 0.5 && total <= 1.001, "{total}");
}

#[test]
fn what_no_endpoint_ever_saw_is_stranger_the_more_endpoints_share_the_parameter() {
    let learn = |endpoints: &[&str]| {
        let mut builder = ProfileBuilder::default();
        for index in 0..400u64 {
            let endpoint = endpoints[index as usize % endpoints.len()];
            builder.learn(&observe(&format!("{endpoint}?sku=AB-{}", 1000 + index)), index << 20);
        }
        for index in 0..20u64 {
            builder.learn(&observe(&format!("/rare?sku=AB-{}", 2000 + index)), index << 20);
        }
        builder.finish().unwrap()
    };
    let surprise = |profiles: &Profiles, target: &str| {
        let observation = observe(target);
        let param = observation.params.iter().find(|param| param.name == "sku").unwrap();
        profiles.context(&observation).param(param.location, &param.name).surprises(&param.summary).chars
    };
    let (shared, alone) = (learn(&["/stock", "/price"]), learn(&["/about"]));
    assert!(surprise(&shared, "/rare?sku=AB-1'") > 3.0, "{}", surprise(&shared, "/rare?sku=AB-1'"));
    assert_eq!(surprise(&shared, "/rare?sku=AB-17"), 0.0);
    assert_eq!(surprise(&alone, "/rare?sku=AB-17"), 0.0);
}

#[test]
fn one_client_alone_cannot_make_a_value_normal() {
    let mut builder = ProfileBuilder::default();
    for index in 0..400 {
        builder.learn(&clean(index), index << 20);
        builder.learn(&observe("/search?q=hat&sort=price%27&page=1"), 7);
    }
    let poisoned = builder.finish().unwrap();
    let surprise = |profiles: &Profiles| {
        let extraction = extract(&observe("/search?q=hat&sort=price%27&page=1"), profiles);
        extraction.vector.0.iter().sum::<f32>()
    };
    // The same requests by as many clients are a change of the site, and are learned.
    let mut builder = ProfileBuilder::default();
    for index in 0..400 {
        builder.learn(&clean(index), index << 20);
        builder.learn(&observe("/search?q=hat&sort=price%27&page=1"), index << 21);
    }
    let changed = builder.finish().unwrap();
    assert!(surprise(&poisoned) < surprise(&profiles()) + 1.0);
    assert!(surprise(&changed) < surprise(&poisoned), "{} {}", surprise(&changed), surprise(&poisoned));
}

#[test]
fn many_words_below_one_path_are_one_endpoint() {
    let mut builder = ProfileBuilder::default();
    let word = |i: u64| {
        format!("{}{}", ["ba", "ce", "di", "fo", "gu"][i as usize % 5], ["la", "me", "ni"][i as usize % 3])
            + ["", "ra", "se", "ti", "vo"][i as usize / 15 % 5]
    };
    for index in 0..300 {
        builder.learn(&observe(&format!("/tags/{}", word(index))), index << 20);
        builder.learn(&observe("/about"), index << 20);
    }
    let profiles = builder.finish().unwrap();
    let endpoints: Vec<&str> = profiles.endpoints().map(|(key, _)| key).collect();
    assert_eq!(endpoints, ["GET /about", "GET /tags/{any}"]);
    assert_eq!(profiles.context(&observe("/tags/neverseen")).endpoint_surprise, 0.0);
    assert!(profiles.context(&observe("/admin")).endpoint_surprise > 2.0);
}

#[test]
fn an_artifact_reads_back_to_the_same_bits() {
    let (model, bytes, key) = signed();
    let read = artifact::decode(&bytes, &[key.verifying_key()]).unwrap();
    assert_eq!(read, model);
    let header = artifact::header(&bytes).unwrap();
    assert_eq!((header.seq, header.signer), (3, artifact::hex(key.verifying_key().as_bytes())));
    for index in 0..50 {
        let (observation, client) = (clean(index), ClientVector::UNKNOWN);
        let (a, b) = (model.score(&observation, &client), read.score(&observation, &client));
        assert_eq!(a.request_distance.to_bits(), b.request_distance.to_bits());
    }
}

#[test]
fn a_damaged_foreign_or_untrusted_artifact_is_refused() {
    let (_, bytes, key) = signed();
    let trusted = [key.verifying_key()];
    for cut in (0..bytes.len()).step_by(97) {
        let refused = artifact::decode(&bytes[..cut], &trusted).unwrap_err();
        assert!(matches!(refused, ArtifactError::Malformed(_)), "cut at {cut}: {refused}");
    }
    for at in (0..bytes.len()).step_by(211) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        assert!(artifact::decode(&changed, &trusted).is_err(), "changed at {at}");
    }
    let stranger = SigningKey::from_bytes(&[4; 32]);
    assert!(matches!(
        artifact::decode(&bytes, &[stranger.verifying_key()]),
        Err(ArtifactError::Untrusted(_))
    ));
    assert!(matches!(artifact::decode(&bytes, &[]), Err(ArtifactError::Untrusted(_))));
    let mut newer = bytes.clone();
    newer[8] = 200;
    assert_eq!(artifact::decode(&newer, &trusted), Err(ArtifactError::Format { found: 200 }));
}

#[test]
fn a_model_with_bad_content_is_refused() {
    let spoil: [fn(&mut RawModel); 7] = [
        |raw| raw.seq = 0,
        |raw| raw.requests.centers[FEATURES / 2] = f32::NAN,
        |raw| raw.requests.scales[0] = -1.0,
        |raw| raw.request_certificate.threshold = f32::NAN,
        |raw| raw.request_groups.routes[0].1.threshold = f32::NAN,
        |raw| raw.request_calibration.steps.reverse(),
        |raw| raw.client_calibration = Some(RawCalibration::default()),
    ];
    for (index, spoil) in spoil.into_iter().enumerate() {
        let mut raw = raw_model();
        spoil(&mut raw);
        assert!(Model::try_from(raw).is_err(), "case {index}");
    }
}

#[test]
fn a_model_that_scores_otherwise_than_recorded_is_refused() {
    let model = model();
    let mut golden = RawGolden::record(&model, clean(1), ClientVector::UNKNOWN);
    golden.request_distance += 0.5;
    let key = SigningKey::from_bytes(&[3; 32]);
    let bytes = artifact::encode(&model, &[golden], &key).unwrap();
    let refused = artifact::decode(&bytes, &[key.verifying_key()]);
    assert!(matches!(refused, Err(ArtifactError::Golden { index: 0, .. })), "{refused:?}");
}

#[test]
fn a_clients_behavior_is_judged_only_once_there_is_enough_of_it() {
    let mut window = ClientWindow::new(0);
    for index in 0..20u64 {
        let mature = window.vector().is_mature();
        assert_eq!(mature, index > 8, "after {index} requests");
        window.record_request(index, &clean(index));
        window.record_response(index, ResponseSummary { status: 200, bytes: 100 });
    }
}

fn signed() -> (Model, Vec<u8>, SigningKey) {
    let model = model();
    let golden: Vec<RawGolden> =
        (0..8).map(|index| RawGolden::record(&model, clean(index), ClientVector::UNKNOWN)).collect();
    let key = SigningKey::from_bytes(&[3; 32]);
    let bytes = artifact::encode(&model, &golden, &key).unwrap();
    (model, bytes, key)
}
