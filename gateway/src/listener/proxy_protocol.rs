//! The PROXY protocol, versions 1 and 2: a proxy in front says whose connection it passes on, before anything else.
//! The format is HAProxy's `proxy-protocol.txt`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest line of version 1, its end included.
const LINE_BYTES: usize = 107;

/// Most bytes of addresses and extensions in version 2: the format allows more, nobody needs them.
const BLOCK_BYTES: u16 = 4096;

/// Both ends of the connection that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// The client.
    pub(super) source: SocketAddr,
    /// Where it connected to.
    pub(super) destination: SocketAddr,
}

/// Reads the header and not one byte more. `None` if the proxy speaks for itself or does not know.
///
/// # Errors
/// There is no header, or it is not as the format demands.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if &start == SIGNATURE { version_2(stream).await } else { version_1(stream, &start).await }
}

async fn version_1(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<Option<Ends>> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_BYTES || !line.starts_with(b"PROXY ") {
            return Err(wrong());
        }
        line.push(stream.read_u8().await?);
    }
    let text =
        std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix("\r\n")).ok_or_else(wrong)?;
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        [_, "UNKNOWN", ..] => Ok(None),
        [_, family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let end = |address: &str, port: &str| {
                let address: IpAddr = address.parse().ok()?;
                let port: u16 = port.parse().ok()?;
                (address.is_ipv4() == (*family == "TCP4")).then_some(SocketAddr::new(address, port))
            };
            let (source, destination) = end(source, from).zip(end(destination, to)).ok_or_else(wrong)?;
            Ok(Some(Ends { source, destination }))
        }
        _ => Err(wrong()),
    }
}

async fn version_2(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let (kind, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = stream.read_u16().await?;
    if length > BLOCK_BYTES {
        return Err(wrong());
    }
    let mut block = vec![0; usize::from(length)];
    stream.read_exact(&mut block).await?;
    match (kind, family) {
        // LOCAL.
        (0x20, _) => Ok(None),
        (0x21, 0x11) => ends::<4>(&block).map(Some).ok_or_else(wrong),
        (0x21, 0x21) => ends::<16>(&block).map(Some).ok_or_else(wrong),
        // Something else than TCP was passed on.
        (0x21, _) => Ok(None),
        _ => Err(wrong()),
    }
}

/// Two addresses, then two ports.
fn ends<const N: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    let end = |address: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port))
    };
    Some(Ends { source: end(source, from), destination: end(destination, to) })
}

fn wrong() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends as text, and what is left of the stream.
    async fn parse(bytes: &[u8]) -> Result<(String, String), io::ErrorKind> {
        let mut stream = bytes;
        let ends = read(&mut stream).await.map_err(|error| error.kind())?;
        let text = ends.map_or("local".to_owned(), |ends| format!("{} {}", ends.source, ends.destination));
        Ok((text, String::from_utf8_lossy(stream).into_owned()))
    }

    fn found(text: &str) -> Result<(String, String), io::ErrorKind> {
        Ok((text.to_owned(), "GET".to_owned()))
    }

    #[tokio::test]
    async fn version_1_is_a_line() {
        for (line, expected) in [
            ("TCP4 192.0.2.1 192.0.2.9 4711 443", "192.0.2.1:4711 192.0.2.9:443"),
            ("TCP6 2001:db8::1 2001:db8::9 1 2", "[2001:db8::1]:1 [2001:db8::9]:2"),
            ("UNKNOWN", "local"),
            ("UNKNOWN ffff::1 ffff::2 1 2", "local"),
        ] {
            assert_eq!(parse(format!("PROXY {line}\r\nGET").as_bytes()).await, found(expected), "{line}");
        }
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 4711\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::9 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4711 65536\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.9 4711 443\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.9 4711 443\r\n",
            "proxy tcp4 192.0.2.1 192.0.2.9 4711 443\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()).await, Err(io::ErrorKind::InvalidData), "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "a".repeat(200));
        assert_eq!(parse(endless.as_bytes()).await, Err(io::ErrorKind::InvalidData));
        assert_eq!(parse(b"PROXY UNK").await, Err(io::ErrorKind::UnexpectedEof));
    }

    #[tokio::test]
    async fn version_2_is_a_block() {
        let block = |kind: u8, family: u8, block: &[u8]| {
            [&SIGNATURE[..], &[kind, family, 0, block.len() as u8], block, b"GET"].concat()
        };
        let four = [192, 0, 2, 1, 192, 0, 2, 9, 0x12, 0x67, 1, 0xbb];
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1, 0x20, 1, 0xd, 0xb8], &[0; 11], &[9, 0, 1, 0, 2]]
            .concat();
        let extended = [&four[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (block(0x21, 0x11, &four), "192.0.2.1:4711 192.0.2.9:443"),
            (block(0x21, 0x11, &extended), "192.0.2.1:4711 192.0.2.9:443"),
            (block(0x21, 0x21, &six), "[2001:db8::1]:1 [2001:db8::9]:2"),
            (block(0x20, 0, b""), "local"),
            (block(0x20, 0x11, &four), "local"),
            (block(0x21, 0x31, &[0; 200]), "local"),
        ] {
            assert_eq!(parse(&bytes).await, found(expected));
        }
        for bytes in [block(0x11, 0x11, &four), block(0x22, 0x11, &four), block(0x21, 0x11, &four[..11])] {
            assert_eq!(parse(&bytes).await, Err(io::ErrorKind::InvalidData));
        }
        let huge = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(parse(&huge).await, Err(io::ErrorKind::InvalidData));
    }
}
