//! Parity: what the gateway observed and scored is, bit for bit, what anybody computes from the same artifact.

use std::{collections::BTreeMap, time::Duration};

use datasets::{
    attackers::{Attacker, Persona},
    benign,
    request::GeneratedRequest,
};
use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
    teacher::{self, Teacher},
};

use crate::wire::{id_bytes, segment_events};

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_observes_and_scores_as_the_model_does_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let teacher = Teacher::new(11).unwrap();
    let model = teacher.model(3).unwrap();
    teacher.install_keys(&state).unwrap();
    teacher::publish(&state, 3, &teacher.artifact(&model).unwrap()).unwrap();

    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.mode = "detect";
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    gateway.wait_model(3, Duration::from_secs(10)).await.unwrap();

    let benign = benign::population(5, 0, 40).into_iter().flat_map(|client| client.take(8));
    let attackers = Persona::ALL
        .iter()
        .zip(8_000..)
        .flat_map(|(&persona, index)| Attacker::new(5, index, persona).take(25));
    let mut sent: BTreeMap<[u8; 16], GeneratedRequest> = BTreeMap::new();
    let http = gateway.client();
    for request in benign.chain(attackers) {
        let answer = http.send(&request).await.unwrap();
        let id = id_bytes(answer.request_id().expect("a request id"));
        assert!(sent.insert(id, request).is_none(), "a request id was given twice");
    }
    gateway.process().signal("TERM").unwrap();
    assert!(gateway.process().wait_exit(Duration::from_secs(20)).await.unwrap().success());

    let events = segment_events(&state);
    let (mut compared, mut flagged) = (0, 0);
    for event in &events {
        let Some(request) = sent.remove(&event.id) else { continue };
        let observation = teacher.observe(&request);
        assert_eq!(event.observation, observation, "{request:?}");
        assert_eq!(event.model, 3);
        let score = model.score(&observation, &event.client_vector);
        let found = event.score.expect("a score");
        // Floats are equal as bits, not merely as numbers.
        let bits = |score: waf_model::score::Score| {
            [score.request_distance, score.request.get(), score.client_distance, score.client.get()]
                .map(f32::to_bits)
        };
        assert_eq!((bits(found), found.cluster), (bits(score), score.cluster), "{request:?}");
        compared += 1;
        flagged +=
            usize::from(model.flags_request(&score, &event.route) || event.observation.rule_points >= 5);
    }
    assert!(sent.is_empty(), "{} requests have no event, the first: {:?}", sent.len(), sent.values().next());
    assert!(
        compared > 500 && flagged > 50,
        "{compared} compared, {flagged} of them flagged: too few to prove anything"
    );
}
