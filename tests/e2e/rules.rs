//! Rules as an operator meets them: sets of files, exclusions, the command line, and responses that are withheld.

use std::{fs, path::Path, process::Command, time::Duration};

use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
    process::binary,
};

use crate::wire::{self, INJECTION};

fn gateway(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(binary("gateway").unwrap()).args(arguments).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

/// A rule set of two files, of which the first includes the second by a pattern and has a data file beside it.
fn write_rules(directory: &Path) {
    let inner = directory.join("inner");
    fs::create_dir_all(&inner).unwrap();
    let main = "Include inner/*.conf\n\
        # Looks for words that only this site has.\n\
        SecRule ARGS \"@pmFromFile words.data\" \"id:4001,phase:2,block,severity:CRITICAL,msg:'Own word',tag:'CWE-89'\"\n\
        SecRule TX:PARANOIA_LEVEL \"@lt 2\" \"id:4002,phase:2,pass,nolog,skipAfter:END\"\n\
        SecRule ARGS:q \"@contains strict\" \"id:4003,phase:2,block,severity:CRITICAL,tag:'paranoia-level/2'\"\n\
        SecMarker END\n";
    fs::write(directory.join("main.conf"), main).unwrap();
    fs::write(directory.join("words.data"), "# words\nwombat\nquokka\n").unwrap();
    let leak = "SecResponseBodyAccess On\nSecResponseBodyMimeType application/json text/html\n\
        SecRule RESPONSE_BODY \"@contains Product 13\" \"id:4004,phase:4,block,severity:CRITICAL,msg:'Leak'\"\n";
    fs::write(inner.join("leak.conf"), leak).unwrap();
}

fn configuration(directory: &Path, waf: &str) -> String {
    let file = directory.join("portcullis.yaml");
    let text = format!(
        "version: 1\nroutes:\n  - name: strict\n    match: {{paths: [/strict]}}\n    upstreams: [{{url: 'http://127.0.0.1:1'}}]\n    \
         waf: {{paranoia: 2}}\n  - name: shop\n    upstreams: [{{url: 'http://127.0.0.1:1'}}]\n    waf: {{{waf}}}\n\
         waf:\n  rule_sets: {{own: ['{}']}}\n  rules: [builtin, own]\n",
        directory.join("main.conf").display()
    );
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn the_check_compiles_rules_with_everything_they_name() {
    let directory = tempfile::tempdir().unwrap();
    write_rules(directory.path());
    let file = configuration(directory.path(), "exclude: [{rules: 777}]");
    let (code, text) = gateway(&["check", "--config", &file]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(":9: routes[1].waf.exclude[0]: excludes nothing"), "{text}");

    fs::write(directory.path().join("words.data"), "").unwrap();
    fs::remove_file(directory.path().join("inner/leak.conf")).unwrap();
    fs::write(directory.path().join("inner/bad.conf"), "\nSecRule ARGS \"@nonsense x\" \"id:1,phase:2\"\n")
        .unwrap();
    let (code, text) = gateway(&["check", "--config", &file]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("bad.conf:2: "), "{text}");
}

#[test]
fn rules_are_listed_shown_and_tried() {
    let directory = tempfile::tempdir().unwrap();
    write_rules(directory.path());
    let file = configuration(directory.path(), "exclude: [{rules: 4001, parameter: 'ARGS:comment'}]");
    let on = |route: &str, arguments: &[&str]| {
        gateway(&[&["rules"], arguments, &["--config", &file, "--route", route]].concat())
    };

    let (code, text) = on("shop", &["list", "-o", "json"]);
    assert_eq!(code, 0, "{text}");
    let listed: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let own = listed.iter().find(|rule| rule["id"] == 4001).expect("own rules are listed");
    assert_eq!((&own["phase"], &own["severity"]), (&2.into(), &"critical".into()));
    assert!(own["place"].as_str().unwrap().ends_with("main.conf:3"), "{own}");
    assert!(listed.iter().any(|rule| rule["id"] == 1_000_200), "and the built-in ones");

    let (code, text) = on("shop", &["show", "4001"]);
    assert_eq!(code, 0, "{text}");
    for part in ["Own word", "words that only this site has", "definitions/89.html", "@pmFromFile words.data"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(on("shop", &["show", "9"]).0, 1);
    assert_eq!(on("none", &["list"]).0, 2);

    for (route, url, expected) in [
        ("shop", "/?q=wombat", 2),
        ("shop", "/?comment=wombat", 0),
        ("strict", "/?comment=wombat", 2),
        ("shop", "/?q=strict", 0),
        ("strict", "/?q=strict", 2),
        ("shop", INJECTION, 2),
        ("shop", "/?q=harmless", 0),
    ] {
        let (code, text) = on(route, &["test", "--url", url]);
        assert_eq!(code, expected, "{route} {url}: {text}");
    }
    let (_, text) = on("shop", &["test", "--url", "/", "-d", "q=a+wombat"]);
    assert!(text.contains("rule 4001") && text.contains("ARGS:q"), "{text}");
    assert!(!text.contains("wombat"), "what matched is masked: {text}");

    let request = directory.path().join("request");
    fs::write(
        &request,
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\r\n{\"a\":[\"quokka\"]}",
    )
    .unwrap();
    let (code, text) = on("shop", &["test", "--request", request.to_str().unwrap(), "-o", "json"]);
    let outcome: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &outcome["status"], &outcome["matches"][0]["id"]),
        (2, &403.into(), &4001.into()),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_gives_something_away_is_withheld_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    write_rules(directory.path());
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let rules = format!("rule_sets: {{own: ['{}']}}", directory.path().join("main.conf").display());
    let mut settings = Settings::new(origin.url());
    settings.waf = vec![rules, "rules: [builtin, own]".to_owned()];
    let block = Gateway::start(&directory.path().join("block"), &settings).await.unwrap();
    settings.mode = "detect";
    let detect = Gateway::start(&directory.path().join("detect"), &settings).await.unwrap();

    let direct = Client::new(origin.address());
    let harmless = wire::get("/products/12", "198.51.100.1");
    let leak = wire::get("/products/13", "198.51.100.2");
    assert_eq!(
        block.client().send(&harmless).await.unwrap().body,
        direct.send(&harmless).await.unwrap().body
    );
    let withheld = block.client().send(&leak).await.unwrap();
    assert_eq!(withheld.status, 403);
    let shown = String::from_utf8_lossy(&withheld.body).into_owned();
    assert!(!shown.contains("Product") && !shown.contains("4004"), "{shown}");
    assert_eq!(detect.client().send(&leak).await.unwrap().body, direct.send(&leak).await.unwrap().body);

    let id = withheld.request_id().unwrap();
    let (code, text) = block.command(&["explain", id]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    for part in ["verdict   response", "rule 4004", "RESPONSE_BODY", "not the client's fault", "evidence  0 "]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    for _ in 0..20 {
        block.client().send(&leak).await.unwrap();
    }
    assert!(block.list(&["blocks", "list"]).await.unwrap().is_empty(), "the client did nothing wrong");
    assert!(block.metric("portcullis_waf_response_bodies_total").await.unwrap() >= 22.0);
    block.wait_metric("portcullis_events_written_total", 22.0, Duration::from_secs(10)).await.unwrap();
    drop(block);

    let events = wire::segment_events(&directory.path().join("block/state"));
    let event = events.iter().find(|event| event.id == wire::id_bytes(id)).expect("the event");
    assert_eq!((event.response_hits[0].rule, event.hits.len(), event.status), (4004, 0, 403));
}
