//! One very large upload, and how much memory the gateway takes for it.

use std::{fs, io, net::SocketAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Bytes of the upload.
const BYTES: usize = 1 << 30;

/// Most that the peak of memory may grow: inspected prefix, its decodings, buffers; a small part of the upload.
const MOST_MIB: u64 = 64;

/// Sends the upload through the gateway at `address`, process `pid`, and writes what it took.
///
/// # Errors
/// It was refused, or the memory grew with it.
pub(crate) async fn measure(out: &mut impl io::Write, pid: u32, address: SocketAddr) -> Result<()> {
    let before = peak_mib(pid)?;
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: shop.example\r\nuser-agent: bench\r\naccept: */*\r\nconnection: close\r\n\
         content-type: application/octet-stream\r\ncontent-length: {BYTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..BYTES / block.len() {
        stream.write_all(&block).await.context("the upload was cut")?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let line =
        String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    ensure!(line.contains(" 200"), "the upload was answered with {line:?}");
    let grown = peak_mib(pid)?.saturating_sub(before);
    writeln!(
        out,
        "\nupload of 1 GiB: {:.1} s, the gateway's peak of memory grew from {before} by {grown} MiB",
        started.elapsed().as_secs_f64()
    )?;
    ensure!(grown <= MOST_MIB, "memory grew by {grown} MiB; at most {MOST_MIB} may be");
    Ok(())
}

/// The most memory that process `pid` ever held.
fn peak_mib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).context("VmHWM")?;
    Ok(kib >> 10)
}
