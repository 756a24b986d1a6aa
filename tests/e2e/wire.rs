//! What the tests look at beside responses: events in the store, and requests made by hand.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use datasets::request::GeneratedRequest;
use redis::{AsyncCommands as _, streams::StreamRangeReply};
use waf_model::{
    event::Event,
    keys,
    segment::{self, Frame, Kind},
};

/// A GET of `uri` by `client`, as a plain program sends it.
pub(crate) fn get(uri: &str, client: &str) -> GeneratedRequest {
    GeneratedRequest {
        method: "GET",
        uri: uri.to_owned(),
        headers: vec![("user-agent", "test/1.0".to_owned()), ("accept", "*/*".to_owned())],
        body: Vec::new(),
        client: client.parse::<IpAddr>().expect("an address"),
        think: Duration::ZERO,
    }
}

/// The injection of the quick start: static rules catch it.
pub(crate) const INJECTION: &str = "/?id=1%27%20or%201=1--%20-";

/// Every event in the segments of the embedded store at `state`, in order.
pub(crate) fn segment_events(state: &Path) -> Vec<Event> {
    let mut files: Vec<_> = fs::read_dir(state.join("events"))
        .expect("the embedded store's events")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let mut rest = bytes.as_slice();
        while let Frame::Whole { kind, record, size } = segment::read(rest) {
            if kind == Kind::Event {
                events.push(Event::decode(record).expect("an event of this version"));
            }
            rest = &rest[size..];
        }
        assert!(rest.is_empty(), "{} ends in {} bytes that are no frame", file.display(), rest.len());
    }
    events
}

/// Every event in the stream, in order.
pub(crate) async fn stream_events(redis: &mut redis::aio::MultiplexedConnection) -> Vec<Event> {
    let stream: StreamRangeReply = redis.xrange_all(keys::EVENTS).await.expect("the event stream");
    let field = |entry: &redis::streams::StreamId| entry.get::<Vec<u8>>("d").expect("field d");
    stream.ids.iter().map(|entry| Event::decode(&field(entry)).expect("an event of this version")).collect()
}

/// A request id in the form of [`Event::id`].
pub(crate) fn id_bytes(id: &str) -> [u8; 16] {
    let digits: Vec<u32> = id.chars().filter_map(|c| c.to_digit(16)).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    bytes.try_into().expect("a request id is 16 bytes")
}
