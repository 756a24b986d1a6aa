//! Replaying items with a fixed model and client blocking off: a verdict depends on the item alone.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use datasets::{
    attackers::{Attacker, Persona},
    benign,
    request::GeneratedRequest,
};
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
    teacher::Teacher,
};

/// Sends every item in the given order, each in the name of an address of its own; 403 or not, by item.
async fn verdicts(
    http: &Client,
    items: &[GeneratedRequest],
    order: impl Iterator<Item = usize>,
) -> BTreeMap<usize, bool> {
    let mut verdicts = BTreeMap::new();
    for index in order {
        let mut item = items[index].clone();
        item.client = Ipv4Addr::from(0x0a00_0000 + u32::try_from(index).unwrap()).into();
        let answer = http.send(&item).await.unwrap();
        assert!(!answer.status.is_server_error(), "{} {}: {}", item.method, item.uri, answer.status);
        verdicts.insert(index, tests::crowd::made_by_gateway(&answer));
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_depends_on_the_item_alone() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(31).unwrap();
    teacher.install_keys(&directory.path().join("state")).unwrap();
    let file = directory.path().join("fixed.model");
    fs::write(&file, teacher.artifact(&teacher.model(5).unwrap()).unwrap()).unwrap();

    let benign = benign::population(8, 3_000, 20).into_iter().flat_map(|client| client.take(10));
    let attacks = Persona::ALL
        .iter()
        .zip(8_000..)
        .flat_map(|(&persona, index)| Attacker::new(8, index, persona).take(20));
    let items: Vec<GeneratedRequest> = benign.chain(attacks).collect();

    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf = vec!["block_clients: off".to_owned(), format!("model: {}", file.display())];
    let mut rounds = Vec::new();
    for (round, order) in
        [(0..items.len()).collect::<Vec<_>>(), (0..items.len()).rev().collect()].into_iter().enumerate()
    {
        // A gateway of its own for each round: nothing may be left from the one before.
        let place = directory.path().join(format!("round-{round}"));
        teacher.install_keys(&place.join("state")).unwrap();
        let gateway = Gateway::start(&place, &settings).await.unwrap();
        gateway.wait_model(5, Duration::from_secs(10)).await.unwrap();
        rounds.push(verdicts(&gateway.client(), &items, order.into_iter()).await);
        assert_eq!(gateway.list(&["blocks", "list"]).await.unwrap().len(), 0, "client blocking is off");
    }
    let different: Vec<_> = rounds[0]
        .iter()
        .filter(|(index, verdict)| rounds[1][index] != **verdict)
        .map(|(index, _)| &items[*index])
        .collect();
    assert!(different.is_empty(), "{} verdicts differ, the first: {:?}", different.len(), different[0]);
    let refused = rounds[0].values().filter(|refused| **refused).count();
    assert!(refused >= 20, "{refused} of {} items refused", items.len());
}
