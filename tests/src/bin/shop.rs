//! The example API as a program: `shop ADDRESS:PORT`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tests::origin;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: shop ADDRESS:PORT")?;
    let listener = TcpListener::bind(&address).await.with_context(|| format!("listening on {address}"))?;
    origin::serve(listener, Duration::from_millis(1), Arc::default()).await;
    Ok(())
}
