//! A client that writes frames as it likes and understands of the answers what the tests need.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf, split},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Events that may wait to be looked at.
const EVENTS: usize = 10_000;

/// What the server said, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A response on a stream begins; its header block.
    Headers(u32, Vec<u8>),
    /// Data of a response.
    Data(u32, Vec<u8>),
    /// A response ended.
    End(u32),
    /// A stream was reset.
    Reset(u32),
    /// The connection is about to end.
    GoAway,
    /// It has ended.
    Closed,
}

/// A connection that sent its preface.
#[derive(Debug)]
pub(super) struct Client {
    writer: WriteHalf<TcpStream>,
    events: mpsc::Receiver<Event>,
    ended: bool,
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// HEADERS, and CONTINUATION where one frame is too small; 1 in `flags` ends the stream, 4 the block.
pub(super) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(16_000);
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&[u8]> = parts.collect();
    let first_flags = if rest.is_empty() { flags } else { flags & !4 };
    let mut frames = frame(1, first_flags, stream, first);
    for (index, part) in rest.iter().enumerate() {
        let last = if index + 1 == rest.len() { flags & 4 } else { 0 };
        frames.extend(frame(9, last, stream, part));
    }
    frames
}

/// A field that enters no table, without Huffman's code.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

/// A field that enters the table as its entry 62.
pub(super) fn entered(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &text(name), &text(value)].concat()
}

/// A reference to an entry below 127.
pub(super) fn indexed(entry: u8) -> Vec<u8> {
    vec![0x80 | entry]
}

/// A text with its length. Characters up to U+00FF are one byte.
fn text(text: &str) -> Vec<u8> {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let mut coded = Vec::new();
    if bytes.len() < 127 {
        coded.push(bytes.len() as u8);
    } else {
        coded.push(127);
        let mut rest = bytes.len() - 127;
        while rest >= 128 {
            coded.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        coded.push(rest as u8);
    }
    coded.extend(bytes);
    coded
}

impl Client {
    /// Connects with settings of the client's choice: pairs of number and value.
    pub(super) async fn with_settings(server: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut reader, writer) = split(stream);
        let (sender, events) = mpsc::channel(EVENTS);
        tokio::spawn(async move {
            let mut header = [0; 9];
            while reader.read_exact(&mut header).await.is_ok() {
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
                let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
                let mut payload = vec![0; length as usize];
                if reader.read_exact(&mut payload).await.is_err() {
                    break;
                }
                let event = match header[3] {
                    0 => Event::Data(stream, payload),
                    1 => Event::Headers(stream, payload),
                    3 => Event::Reset(stream),
                    7 => Event::GoAway,
                    _ => continue,
                };
                let ends = header[3] < 2 && header[4] & 1 == 1;
                // A flood may cause more than anybody looks at.
                let _ = sender.try_send(event);
                if ends {
                    let _ = sender.try_send(Event::End(stream));
                }
            }
            let _ = sender.send(Event::Closed).await;
        });
        let mut client = Self { writer, events, ended: false };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(&frame(4, 0, 0, &payload)).await;
        client
    }

    /// Connects with the settings that are usual.
    pub(super) async fn connect(server: SocketAddr) -> Self {
        Self::with_settings(server, &[]).await
    }

    /// Sends bytes; false if the connection has ended.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.ended |= matches!(event, Event::Closed);
        }
        if self.ended {
            return false;
        }
        timeout(PATIENCE, self.writer.write_all(bytes)).await.expect("the server reads").is_ok()
    }

    /// Whether the connection ends now by itself.
    pub(super) async fn ends(&mut self) -> bool {
        while !self.ended {
            match timeout(PATIENCE / 2, self.events.recv()).await {
                Ok(Some(Event::Closed | Event::GoAway) | None) => self.ended = true,
                Ok(Some(_)) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The next thing that the server says.
    pub(super) async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("the server answers").unwrap_or(Event::Closed)
    }
}
