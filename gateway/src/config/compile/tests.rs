//! Tests of the module above.

use http::Method;

use super::*;
use crate::config::{Recording, Records, schema};

fn environment(name: &str) -> Option<String> {
    (name == "UPSTREAM").then(|| "http://10.0.0.5:3000".to_owned())
}

#[track_caller]
fn mistakes(text: &str, expected: &[&str]) {
    let found = load(text, "p.yaml", &environment).unwrap_err().to_string();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "\n{found}");
}

#[test]
fn a_full_file_becomes_a_configuration() {
    let text = r#"
version: 1
listeners:
  - {name: web, address: "0.0.0.0:8080"}
  - {name: inner, address: "127.0.0.1:8081"}
routes:
  - name: api
    match: {listeners: [web], hosts: [Shop.Example, "*.shop.example"], paths: [/api], methods: [get, POST]}
    upstreams: [{url: "${UPSTREAM}"}, {url: https://origin.example}]
    strip_prefix: on
    preserve_host: true
    timeout: 5s
    waf: {mode: detect, on_error: pass, oversize: reject}
  - upstreams: [{url: "http://[::1]:3000"}]
trusted_proxies: [10.0.0.0/8, 192.0.2.1]
limits: {headers: 8KiB, header_count: "50", body: 2MiB, inspect: 64KiB, keep_alive: 250ms}
waf:
  mode: off
  rules: {builtin: off}
  block_clients: off
  provisional: block
  inbound_threshold: 7
  allow: [192.0.2.0/24]
  api_key_header: X-Api-Key
  model_keys: ["000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0eff"]
store: {redis: redis://127.0.0.1:6379}
admin: 127.0.0.1:9999
state: /var/lib/portcullis
"#;
    let config = load(text, "p.yaml", &environment).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.listeners[1].name, "inner");
    let api = &config.routes[0];
    assert_eq!((api.name.as_str(), api.hosts.len(), &api.paths[0]), ("api", 2, &"/api".to_owned()));
    assert_eq!(api.methods, [Method::GET, Method::POST]);
    assert_eq!(api.upstream.origins[0].reach.url, "http://10.0.0.5:3000/");
    assert_eq!((api.mode, api.on_error, api.oversize), (Mode::Detect, OnError::Pass, Oversize::Reject));
    assert!(api.strip_prefix && api.preserve_host);
    let rest = &config.routes[1];
    assert_eq!((rest.name.as_str(), rest.mode, rest.on_error), ("route-2", Mode::Off, OnError::Block));
    assert_eq!(config.trusted_proxies[1], "192.0.2.1/32".parse().unwrap());
    assert_eq!((config.limits.header_bytes, config.limits.header_count), (8192, 50));
    assert_eq!((config.limits.body_bytes, config.limits.inspect_bytes), (2 << 20, 64 << 10));
    assert_eq!(config.limits.keep_alive, Duration::from_millis(250));
    assert_eq!((api.rules.set.rules().count(), config.waf.block_clients), (0, Toggle::Off));
    assert_eq!((config.waf.provisional, api.inbound_threshold), (Mode::Block, 7));
    assert_eq!(config.waf.model_keys[0][31], 0xff);
    assert_eq!(config.store, StoreConfig::Redis("redis://127.0.0.1:6379".to_owned()));
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    mistakes(
        "version: 2
listners: []
routes:
  - name: a b
    match: {paths: [api, /x/*], methods: ['G T'], listeners: [web]}
    upstreams: [{url: 10.0.0.1:80}, {uri: http://a}]
    timeout: 10
    waf: {mode: monitor}
  - name: all
    upstreams: http://a
  - 7
limits:
  body: 1MiB
  inspect: 2MiB
  headers: 16
  header_timeout: soon
trusted_proxies: [10.0.0.0/99]
waf:
  block_clients: perhaps
  model: /does/not/exist
  model_keys: [abc]
  inbound_threshold: -1
store: {redis: localhost}
admin: ${MISSING}
",
        &[
            "p.yaml:1: version: this gateway reads version 1; write \"version: 1\"",
            "p.yaml:2: listners: unknown key; did you mean \"listeners\"?",
            "p.yaml:4: routes[0].name: \"a b\" is not a name: use 1 to 64 letters, digits, \"-\", \"_\", \".\"",
            "p.yaml:5: routes[0].match.listeners[0]: there is no listener \"web\"; there are: http",
            "p.yaml:5: routes[0].match.methods[0]: \"G T\" is not a method",
            "p.yaml:5: routes[0].match.paths[0]: \"api\" is not a plain path; write it as /api",
            "p.yaml:5: routes[0].match.paths[1]: \"/x/*\": paths are prefixes; leave out the \"*\"",
            "p.yaml:6: routes[0].upstreams[0].url: \"10.0.0.1:80\" is neither http nor https; write scheme, host and port, such as http://127.0.0.1:3000",
            "p.yaml:6: routes[0].upstreams[1].uri: unknown key; did you mean \"url\"?",
            "p.yaml:6: routes[0].upstreams[1].url: missing; write scheme, host and port, such as http://127.0.0.1:3000",
            "p.yaml:7: routes[0].timeout: 10 has no unit; write 10s for seconds",
            "p.yaml:8: routes[0].waf.mode: \"monitor\" is not one of off, detect, block",
            "p.yaml:9: routes[1].name: \"all\" stands for every route; choose another name",
            "p.yaml:10: routes[1].upstreams: is \"http://a\", but a list is needed here: put it in [ ] or after a dash",
            "p.yaml:11: routes[2]: is 7, but a group of keys is needed here",
            "p.yaml:14: limits.inspect: cannot be more than limits.body; larger bodies are refused anyway",
            "p.yaml:15: limits.headers: 16 has no unit; write 16B, or use KiB or MiB",
            "p.yaml:16: limits.header_timeout: \"soon\" is not a duration; write 250ms, 10s, 5m or 24h",
            "p.yaml:17: trusted_proxies[0]: \"10.0.0.0/99\" is not an address or a network such as 10.0.0.0/8",
            "p.yaml:19: waf.block_clients: \"perhaps\" is not one of on, off",
            "p.yaml:20: waf.model: \"/does/not/exist\": No such file or directory (os error 2)",
            "p.yaml:21: waf.model_keys[0]: is not a public key: 64 hexadecimal digits, as in <state>/keys/trainer.pub",
            "p.yaml:22: waf.inbound_threshold: is -1, but a whole number from 0 is needed here",
            "p.yaml:23: store.redis: is not a URL; write redis://host:6379 or rediss://host:6379",
            "p.yaml:24: admin: environment variable MISSING is not set; set it, or write the value here",
        ],
    );
}

#[test]
fn an_empty_file_and_no_yaml_are_told_apart() {
    mistakes(
        "# nothing\n",
        &[
            "p.yaml:1: routes: missing; name at least one route with its upstreams",
            "p.yaml:1: version: this gateway reads version 1; write \"version: 1\"",
        ],
    );
    let found = load("version: [1\nroutes: }", "p.yaml", &environment).unwrap_err();
    assert_eq!((found.list.len(), found.list[0].path.as_str()), (1, ""));
    assert!(found.list[0].message.starts_with("not YAML") && found.list[0].line > 0, "{found}");
}

#[test]
fn missing_certificates_are_found_at_load() {
    let text = "version: 1
listeners:
  - address: 0.0.0.0:8443
    tls: {certificate: /does/not/exist.pem, key: /does/not/exist.key}
  - address: 0.0.0.0:8443
    tls: {certificate: x}
routes: [{upstreams: [{url: http://a}]}]
store: embedded
";
    let found = load(text, "p.yaml", &environment).unwrap_err().to_string();
    assert!(found.starts_with("p.yaml:4: listeners[0].tls: /does/not/exist.pem: "), "{found}");
    assert!(found.contains("p.yaml:6: listeners[1].tls: needs \"certificate\" and \"key\""), "{found}");
    assert!(
        found.contains("p.yaml:5: listeners[1].address: 0.0.0.0:8443 is taken by another listener"),
        "{found}"
    );
}

#[test]
fn the_command_line_alone_makes_a_configuration() {
    let config = quick("http://127.0.0.1:3000", Some(":9000"), Some("detect"), Some("s")).unwrap();
    assert_eq!(config.listeners[0].address, "0.0.0.0:9000".parse().unwrap());
    assert_eq!(config.routes[0].mode, Mode::Detect);
    assert_eq!(config.state, PathBuf::from("s"));
    assert_eq!(config.store, StoreConfig::Embedded);
    let wrong = quick("3000", None, Some("monitor"), None).unwrap_err();
    assert_eq!(wrong.list.len(), 2, "{wrong}");
}

#[test]
fn the_schema_describes_every_key() {
    let schema = schema();
    let check = |properties: &serde_json::Value| {
        for (name, property) in properties.as_object().unwrap() {
            let described = property.get("description").is_some() || property.get("$ref").is_some();
            assert!(described, "{name}: {property}");
        }
    };
    check(&schema["properties"]);
    for definition in schema["$defs"].as_object().unwrap().values() {
        if let Some(properties) = definition.get("properties").filter(|_| definition.get("oneOf").is_none()) {
            check(properties);
        }
    }
}

#[test]
fn whole_requests_are_recorded_where_a_route_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("record.key");
    std::fs::write(&key, "00".repeat(32)).unwrap();
    let text = format!(
        "version: 1\nroutes:\n  - {{upstreams: [{{url: http://a}}], record: full}}\n  - {{upstreams: [{{url: http://b}}]}}\n\
         store: {{redis: redis://r}}\nrecords: {{key: {}, keep: 3d, body: 1KiB, per_second: 5}}\n",
        key.display()
    );
    let config = load(&text, "p.yaml", &environment).unwrap();
    let recorded: Vec<_> = config.routes.iter().map(|route| route.record).collect();
    assert_eq!(recorded, [Recording::Full, Recording::Observation]);
    let Records { keep, body_bytes, per_second, .. } = config.records;
    assert_eq!((keep, body_bytes, per_second), (3 * DAY, 1024, 5));
    mistakes(
        "version: 1
routes:
  - {upstreams: [{url: http://a}], record: full, waf: {mode: off}}
store: {redis: redis://r}
records: {keep: 1h, body: 1MiB}
",
        &[
            "p.yaml:3: routes[0].record: needs waf.mode detect or block: what is not inspected is not recorded",
            "p.yaml:5: records.body: is more than 512KiB, the most that one record holds",
            "p.yaml:5: records.keep: is less than a day; write 1d or more",
            "p.yaml:5: records.key: missing; with Redis, gateways and trainer share one key: make a file of 64 hexadecimal digits (openssl rand -hex 32) and name it here",
        ],
    );
}
