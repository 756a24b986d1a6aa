//! Bodies beyond the inspection window: the route's policy holds however the body is framed.

use super::*;

const RULE: &str =
    r#"SecRule ARGS|ARGS_NAMES|XML:/* "@contains evil" "id:1001,phase:2,deny,severity:CRITICAL""#;

const WINDOW: usize = 1000;

const FORM: &str = "application/x-www-form-urlencoded";

/// How a body is framed.
const FRAMINGS: [&str; 4] = ["length", "chunked", "h2 with length", "h2 without length"];

async fn site(oversize: Oversize, mode: Mode) -> Site {
    Site::with_rules(RULE, |config| {
        config.limits.inspect_bytes = WINDOW;
        config.waf.block_clients = Toggle::Off;
        edit_route(config, |route| (route.oversize, route.mode) = (oversize, mode));
    })
    .await
}

/// Sends a body; returns the status.
async fn send(site: &Site, framing: &str, kind: &str, body: &str) -> u16 {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n");
    let response = match framing {
        "length" => site.raw(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await,
        "chunked" => {
            let chunks: String = body
                .as_bytes()
                .chunks(300)
                .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
                .collect();
            site.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).await
        }
        _ => {
            let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
            let bytes = Bytes::copy_from_slice(body.as_bytes());
            let body = if framing == "h2 with length" {
                crate::body::whole(bytes)
            } else {
                let frames: Vec<_> = bytes.chunks(300).map(Bytes::copy_from_slice).collect();
                let frames = futures_util::stream::iter(frames);
                StreamBody::new(futures_util::StreamExt::map(frames, |data| {
                    Ok::<_, BoxError>(http_body::Frame::data(data))
                }))
                .boxed_unsync()
            };
            let request = Request::post(format!("http://{}/", site.address))
                .header("content-type", kind)
                .body(body)
                .unwrap();
            return client.request(request).await.unwrap().status().as_u16();
        }
    };
    status(&response).parse().unwrap()
}

#[tokio::test]
async fn the_policy_for_large_bodies_holds_for_every_framing() {
    let padding = "x".repeat(2 * WINDOW);
    let (early, late) = (format!("q=evil&p={padding}"), format!("p={padding}&q=evil"));
    let small = "q=evil".to_owned();
    for (oversize, expected) in [
        (Oversize::InspectPrefix, [403, 403, 200]),
        (Oversize::Reject, [403, 413, 413]),
        (Oversize::Pass, [403, 200, 200]),
    ] {
        let block = site(oversize, Mode::Block).await;
        let detect = site(oversize, Mode::Detect).await;
        for framing in FRAMINGS {
            for (body, expected) in [&small, &early, &late].into_iter().zip(expected) {
                let before = block.seen().len();
                assert_eq!(send(&block, framing, FORM, body).await, expected, "{oversize:?} {framing}");
                assert_eq!(send(&detect, framing, FORM, body).await, 200, "{oversize:?} {framing} detect");
                assert_eq!(&detect.seen().last().unwrap().body, body.as_bytes());
                let seen = block.seen();
                assert_eq!(seen.len() > before, expected == 200, "{oversize:?} {framing}");
                if expected == 200 {
                    assert_eq!(&seen.last().unwrap().body, body.as_bytes(), "the body arrives whole");
                }
            }
        }
        let cut = block.gateway.metrics.body_truncated.get();
        assert_eq!(cut, if oversize == Oversize::Reject { 0 } else { 8 }, "{oversize:?}");
    }
}

#[tokio::test]
async fn opaque_bodies_are_never_read_as_forms() {
    let site = site(Oversize::InspectPrefix, Mode::Block).await;
    let body = format!("q=evil&r={}", "=&%zz".repeat(500));
    for kind in [
        "application/octet-stream",
        "image/png",
        "video/mp4",
        "application/x-protobuf",
        "application/grpc+proto",
        "application/zip",
        "application/pdf",
        "font/woff2",
    ] {
        for framing in FRAMINGS {
            assert_eq!(send(&site, framing, kind, &body).await, 200, "{kind} {framing}");
        }
    }
    assert_eq!(send(&site, "length", FORM, &body).await, 403);
}
