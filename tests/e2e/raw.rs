//! Both ends of a connection by hand: an origin that keeps the exact bytes it got and answers with any, and a client
//! that sends any.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// From the first byte to the empty line, which is included.
    pub(crate) head: String,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The first line.
    pub(crate) fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// Names and values of the fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head
            .split("\r\n")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
    }

    /// Every value of a field.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What an origin does about a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// What it sends first.
    pub(crate) bytes: Vec<u8>,
    /// What it does then.
    pub(crate) then: Then,
}

/// What an origin does when it has sent its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Waits for another request.
    Keep,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Ends its side and reads on.
    HalfClose,
    /// Does nothing, and keeps the connection open.
    Hang,
    /// Sends this byte by byte, with pauses, and waits for another request.
    Slowly(&'static [u8]),
    /// Sends this over and over, some hundred times in a millisecond.
    Repeat(&'static [u8]),
}

impl Reply {
    /// A short answer with a length.
    pub(crate) fn ok() -> Self {
        Self { bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(), then: Then::Keep }
    }
}

/// What an origin did with what it got.
#[derive(Debug, Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    /// Bytes that are no message that a strict server would take.
    strays: Mutex<Vec<String>>,
}

/// An origin that reads strictly; stops when dropped.
#[derive(Debug)]
pub(crate) struct RawOrigin {
    address: SocketAddr,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

impl RawOrigin {
    /// Serves on a free port; `reply` says what to do about each request.
    ///
    /// # Errors
    /// No port can be had.
    pub(crate) async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), reply).await
    }

    /// Serves on this address.
    ///
    /// # Errors
    /// It is taken.
    pub(crate) async fn start_at(
        address: SocketAddr,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).await.context("binding the origin")?;
        let address = listener.local_addr()?;
        let log = Arc::new(Log::default());
        let reply = Arc::new(reply);
        let shared = log.clone();
        let task = tokio::spawn(async move {
            // Connections end with the origin.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (log, reply) = (shared.clone(), reply.clone());
                connections.spawn(async move {
                    // The gateway may leave at any time.
                    let _ = converse(stream, &log, &*reply).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, log, task })
    }

    /// As the gateway's `upstreams` want it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every whole message so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        locked(&self.log.seen).clone()
    }

    /// Everything else that came.
    pub(crate) fn strays(&self) -> Vec<String> {
        locked(&self.log.strays).clone()
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(
    mut stream: TcpStream,
    log: &Log,
    reply: &(dyn Fn(&Seen) -> Reply + Sync),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let message = loop {
            match parse(&buffer) {
                Parsed::Whole(seen, size) => {
                    buffer.drain(..size);
                    break seen;
                }
                Parsed::Wrong => {
                    locked(&log.strays).push(String::from_utf8_lossy(&buffer).into_owned());
                    return Ok(());
                }
                Parsed::More => {}
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return Ok(());
            }
        };
        let Reply { bytes, then } = reply(&message);
        locked(&log.seen).push(message);
        stream.write_all(&bytes).await?;
        match then {
            Then::Keep => {}
            Then::Close => return stream.shutdown().await,
            Then::Reset => {
                // Where it cannot be set, the close is an ordinary one.
                let _ = stream.set_zero_linger();
                return Ok(());
            }
            Then::HalfClose => stream.shutdown().await?,
            Then::Slowly(part) => {
                for byte in part {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    stream.write_all(&[*byte]).await?;
                }
            }
            Then::Hang => std::future::pending().await,
            Then::Repeat(part) => loop {
                stream.write_all(&part.repeat(100)).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            },
        }
    }
}

enum Parsed {
    Whole(Seen, usize),
    More,
    Wrong,
}

/// Reads one message as the strictest server would.
fn parse(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Parsed::More };
    let head: String = bytes[..end + 4].iter().map(|byte| char::from(*byte)).collect();
    let seen = Seen { head, body: Vec::new() };
    let rest = &bytes[end + 4..];
    let lengths: Vec<&str> = seen.values("content-length").collect();
    let encodings: Vec<&str> = seen.values("transfer-encoding").collect();
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => Parsed::Whole(seen, end + 4),
        ([length], []) => {
            let Ok(length) = length.parse::<usize>() else { return Parsed::Wrong };
            let Some(body) = rest.get(..length) else { return Parsed::More };
            let body = body.to_vec();
            Parsed::Whole(Seen { body, ..seen }, end + 4 + length)
        }
        ([], ["chunked"]) => match chunks(rest) {
            Parsed::Whole(chunked, size) => {
                Parsed::Whole(Seen { head: seen.head, body: chunked.body }, end + 4 + size)
            }
            other => other,
        },
        _ => Parsed::Wrong,
    }
}

fn chunks(bytes: &[u8]) -> Parsed {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return Parsed::More };
        let size = std::str::from_utf8(&bytes[at..at + line]).ok();
        let Some(size) = size.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
            return Parsed::Wrong;
        };
        at += line + 2;
        let Some(data) = bytes.get(at..at + size + 2) else { return Parsed::More };
        if !data.ends_with(b"\r\n") {
            return Parsed::Wrong;
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Parsed::Whole(Seen { head: String::new(), body }, at);
        }
    }
}

/// What a server made of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Statuses of the responses, interim ones left out.
    pub(crate) statuses: Vec<u16>,
    /// Everything that came.
    pub(crate) bytes: Vec<u8>,
}

impl Outcome {
    /// Everything that came, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Sends `bytes` on a connection of its own, waits for so many responses, ends its side, and reads to the end.
///
/// # Errors
/// The connection cannot be opened, or does not end in time.
pub(crate) async fn exchange(server: SocketAddr, bytes: &[u8], responses: usize) -> Result<Outcome> {
    let stream = TcpStream::connect(server).await.context("connecting")?;
    stream.set_nodelay(true)?;
    timeout(PATIENCE, converse_as_client(stream, bytes, responses)).await.context("the connection hangs")
}

async fn converse_as_client(mut stream: TcpStream, bytes: &[u8], responses: usize) -> Outcome {
    // Whoever is refused is refused early: what cannot be sent any more is no matter.
    let _ = stream.write_all(bytes).await;
    let mut outcome = Outcome::default();
    let mut ended = false;
    loop {
        outcome.statuses = statuses(&outcome.bytes);
        if !ended && outcome.statuses.len() >= responses {
            ended = true;
            let _ = stream.shutdown().await;
        }
        // A reset is an end like any other.
        if stream.read_buf(&mut outcome.bytes).await.unwrap_or(0) == 0 {
            return outcome;
        }
    }
}

/// Statuses of the responses that are whole.
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        bytes = &bytes[end + 4..];
        if (100..200).contains(&status) {
            continue;
        }
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let size = match length {
            Some(length) => length,
            None if head.contains("transfer-encoding: chunked") => match chunks(bytes) {
                Parsed::Whole(_, size) => size,
                _ => break,
            },
            None => 0,
        };
        let Some(rest) = bytes.get(size..) else { break };
        bytes = rest;
        found.push(status);
    }
    found
}
