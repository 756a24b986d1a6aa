//! What observing and scoring take from the heap once everything is warm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use allocation_counter::measure;
use waf_model::{
    client::ClientVector,
    features::{FEATURES, TABLE},
    model::{
        Model, RawModel, RawProvenance,
        calibration::{Certificate, RawCalibration, Standing},
        clusters::RawClusters,
        groups::RawGroups,
    },
    observation::{Observation, ValueKey},
    profile::builder::ProfileBuilder,
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::RuleMatches,
    values::{Limits, Values},
};

const KEY: ValueKey = ValueKey([7; 16]);

/// A search as a browser sends it: six header fields, two cookies, three parameters.
fn with_search<T>(run: impl FnOnce(&RequestView<'_>, &Values<'_>) -> T) -> T {
    let headers = [
        Header { name: "user-agent", value: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101" },
        Header { name: "accept", value: b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8" },
        Header { name: "accept-language", value: b"en-US,en;q=0.5" },
        Header { name: "accept-encoding", value: b"gzip, deflate, br" },
        Header { name: "referer", value: b"https://shop.example/category/shoes" },
        Header { name: "upgrade-insecure-requests", value: b"1" },
        Header { name: "cookie", value: b"session=7c1e0a9be2d94f0b8d3f; theme=dark" },
    ];
    let request = RequestView {
        method: "GET",
        path: b"/catalog/search",
        query: Some(b"q=running+shoes&sort=price&page=3"),
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "192.0.2.1",
    };
    run(&request, &Values::extract(&request, &Limits::default()))
}

fn observe(request: &RequestView<'_>, values: &Values<'_>) -> Observation {
    Observation::of(request, values, &RuleMatches::default(), &KEY)
}

fn model(observation: &Observation) -> Model {
    let mut builder = ProfileBuilder::default();
    (0..50).for_each(|client| builder.learn(observation, client << 20));
    let certificate =
        Certificate { budget: 0.01, confidence: 0.95, n: 400, threshold: 8.0, standing: Standing::Certified };
    Model::try_from(RawModel {
        seq: 1,
        value_key: KEY.0,
        provenance: RawProvenance::default(),
        profiles: (&builder.finish().unwrap()).into(),
        requests: RawClusters {
            dimensions: FEATURES,
            centers: vec![0.0; FEATURES],
            scales: TABLE.iter().map(|feature| feature.floor).collect(),
            usual: vec![(0.0, 1.0); FEATURES],
            mass: vec![1.0],
        },
        clients: None,
        request_calibration: RawCalibration::from_distances((0..400).map(|at| at as f32 / 50.0).collect()),
        client_calibration: None,
        request_certificate: certificate,
        request_groups: RawGroups {
            routes: vec![("shop".to_owned(), certificate)],
            others: Some(certificate),
        },
        client_certificate: certificate,
        baseline: Vec::new(),
    })
    .unwrap()
}

#[test]
fn a_score_allocates_nothing_and_an_observation_little_more_than_an_event_keeps() {
    with_search(|request, values| {
        let observation = observe(request, values);
        let model = model(&observation);
        model.score(&observation, &ClientVector::UNKNOWN);
        let scoring = measure(|| {
            let score = model.score(&observation, &ClientVector::UNKNOWN);
            std::hint::black_box(model.flags_request(&score, "shop"));
        });
        assert_eq!(scoring.count_total, 0, "{scoring:?}");
        let observing = measure(|| {
            std::hint::black_box(observe(request, values));
        });
        assert_eq!(observation.params.len(), 11);
        // The template of the path, the list of parameters, the one name of more than 23 bytes, and the path as text.
        assert_eq!(observing.count_total, 4, "{observing:?}");
    });
}
