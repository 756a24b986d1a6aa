//! For whom a listener and a route are there: networks from the file and beside it, countries, autonomous systems.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tests::{
    client::Answer,
    gateway::Gateway,
    mmdb::{self, Value},
    origin::Origin,
};

async fn from(gateway: &Gateway, address: &str, target: &str) -> Answer {
    let uri = format!("http://{}{target}", gateway.address());
    let request = Request::builder().method(Method::GET).uri(uri).header("x-forwarded-for", address);
    gateway.client().exchange(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

async fn statuses(gateway: &Gateway, asked: &[(&str, &str)]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for (address, target) in asked {
        statuses.push(from(gateway, address, target).await.status.as_u16());
    }
    statuses
}

/// Germany and its AS 64500, and France and its AS 64501.
fn databases(directory: &Path) -> (String, String) {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let country = |code| Value::Map(vec![("country", Value::Map(vec![("iso_code", Value::Text(code))]))]);
    let system = |number| Value::Map(vec![("autonomous_system_number", Value::Number(number))]);
    let (german, french) = (address("198.51.100.0"), address("203.0.113.0"));
    let wide = address("2001:db8::");
    let countries = [(german, 24, country("DE")), (french, 24, country("FR")), (wide, 32, country("DE"))];
    let systems = [(german, 24, system(64_500)), (french, 25, system(64_501))];
    let write = |name: &str, bytes: Vec<u8>| {
        let path = directory.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    (write("country.mmdb", mmdb::write(&countries)), write("asn.mmdb", mmdb::write(&systems)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_there_for_networks_countries_and_systems_and_lists_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let (countries, systems) = databases(directory.path());
    let list = directory.path().join("partners.txt");
    fs::write(&list, "# partners\n198.51.100.0/28 # the first\n").unwrap();
    let url = origin.url();
    let route = |name: &str, more: &str| {
        format!(
            "  - {{name: {name}, match: {{paths: [/{name}]}}, strip_prefix: on, upstreams: [{{url: \"{url}\"}}], {more}}}\n"
        )
    };
    let yaml = format!(
        "geo: {{database: {countries}, asn: {systems}}}\nroutes:\n{}{}{}{}",
        route(
            "partners",
            &format!("networks: {{allow: [\"file:{}\", 192.0.2.1], deny: [198.51.100.9]}}", list.display())
        ),
        route("german", "countries: {allow: [de]}"),
        route("systems", "networks: {asn: {deny: [64501]}}"),
        route("slow", "rate_limits: [{rate: 1/h, key: [country, asn]}]"),
    );
    let gateway = Gateway::start_with(directory.path(), &yaml).await.unwrap();

    let partners = [
        ("198.51.100.1", "/partners/"),
        ("192.0.2.1", "/partners/"),
        ("198.51.100.9", "/partners/"),
        ("198.51.100.77", "/partners/"),
    ];
    assert_eq!(statuses(&gateway, &partners).await, [200, 200, 403, 403]);
    let reached = origin.requests();
    let places = [
        ("198.51.100.77", "/german/"),
        ("2001:db8::7", "/german/"),
        ("203.0.113.1", "/german/"),
        ("192.0.2.1", "/german/"),
        ("203.0.113.1", "/systems/"),
        ("203.0.113.200", "/systems/"),
        ("198.51.100.1", "/slow/"),
        ("198.51.100.2", "/slow/"),
        ("203.0.113.1", "/slow/"),
    ];
    assert_eq!(statuses(&gateway, &places).await, [200, 200, 403, 403, 403, 200, 200, 429, 200]);
    assert_eq!(origin.requests(), reached + 5, "who is refused does not reach the origin");

    let told = from(&gateway, "203.0.113.1", "/german/").await;
    let told = String::from_utf8_lossy(&told.body).into_owned();
    assert!(told.contains("Forbidden") && !told.to_lowercase().contains("country"), "{told}");
    let is_logged = |line: &str| {
        line.contains("\"error.type\":\"country_refused\"")
            && line.contains("\"client.geo.country_iso_code\":\"FR\"")
            && line.contains("\"client.as.number\":64501")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !gateway.watch().log().lines().any(is_logged) {
        assert!(Instant::now() < deadline, "{}", gateway.watch().log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = gateway.metrics().await.unwrap();
    let refused =
        "portcullis_access_refused_total{listener=\"main\",route=\"partners\",reason=\"network_refused\"} 2";
    assert!(metrics.contains(refused), "{metrics}");

    // A list with a mistake changes nothing and says where it is; one without is in force.
    fs::write(&list, "198.51.100.64/26\n198.51.100.0/33\n").unwrap();
    let (code, said) = gateway.command(&["reload"]).await.unwrap();
    assert!(code != 0 && said.contains(&format!("{}:2: \"198.51.100.0/33\"", list.display())), "{said}");
    assert_eq!(statuses(&gateway, &partners).await, [200, 200, 403, 403]);
    fs::write(&list, "198.51.100.64/26\n").unwrap();
    let (code, said) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{said}");
    assert_eq!(statuses(&gateway, &partners).await, [403, 200, 403, 200]);

    // What a listener refuses is refused on every route.
    let file = directory.path().join("portcullis.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("{name: main,", "{name: main, networks: {deny: [198.51.100.0/24]},"))
        .unwrap();
    let (code, said) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        statuses(&gateway, &[("198.51.100.77", "/german/"), ("192.0.2.1", "/partners/")]).await,
        [403, 200]
    );
}
