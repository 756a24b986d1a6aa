//! One multiplexed connection to Redis that is made anew after a failure, and never waits long.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisError, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio::sync::Mutex;

use crate::store::StoreError;

/// Longest time for connecting.
const CONNECT: Duration = Duration::from_secs(1);

/// Longest time for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// A connection that mends itself: a failed call drops it, the next one connects again.
pub struct Link {
    client: Client,
    /// Where it leads, without credentials.
    address: String,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.address)
    }
}

impl Link {
    /// A connection to `url`, made when first used.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let unexpected = |error: RedisError| StoreError::Unexpected {
            at: "store".to_owned(),
            what: format!("{error}; write redis://[user:password@]host:port/[database] or rediss://"),
        };
        let info: ConnectionInfo = url.into_connection_info().map_err(unexpected)?;
        let address = info.addr().to_string();
        // Without it small writes wait for acknowledgments of earlier ones.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(unexpected)?;
        Ok(Self { client, address, connection: Mutex::new(None) })
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`StoreError::Away`] if Redis does not answer or refuses.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.connection(Some(ANSWER)).await?;
        let answer = command.query_async(&mut connection).await;
        self.checked(answer).await
    }

    /// Runs one command that may block on the server for up to `wait`; nothing else may use this link meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Away`] if Redis does not answer or refuses.
    pub async fn wait<T: FromRedisValue>(&self, command: &Cmd, wait: Duration) -> Result<T, StoreError> {
        // The response timeout of the connection is off: it would end every wait.
        let mut connection = self.connection(None).await?;
        match tokio::time::timeout(wait + ANSWER, command.query_async(&mut connection)).await {
            Ok(answer) => self.checked(answer).await,
            Err(_) => {
                *self.connection.lock().await = None;
                Err(StoreError::Away(format!("{} does not answer", self.address)))
            }
        }
    }

    /// Runs a pipeline.
    ///
    /// # Errors
    /// [`StoreError::Away`] if Redis does not answer, or refuses one of the commands.
    pub async fn ask_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.connection(Some(ANSWER)).await?;
        let answer = pipeline.query_async(&mut connection).await;
        self.checked(answer).await
    }

    async fn connection(&self, answer: Option<Duration>) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(answer);
        // The client's own limit does not cover a server that accepts and then says nothing.
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let fresh = match tokio::time::timeout(2 * CONNECT, connecting).await {
            Ok(Ok(fresh)) => fresh,
            Ok(Err(error)) => return Err(StoreError::Away(format!("{}: {error}", self.address))),
            Err(_) => return Err(StoreError::Away(format!("{} does not answer", self.address))),
        };
        *connection = Some(fresh.clone());
        Ok(fresh)
    }

    async fn checked<T>(&self, answer: Result<T, RedisError>) -> Result<T, StoreError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // A refusal (READONLY after a fail-over, NOAUTH, out of memory) is mended by a new connection at best
                // and not made worse by it, so every failure drops the connection.
                *self.connection.lock().await = None;
                Err(StoreError::Away(format!("{}: {error}", self.address)))
            }
        }
    }
}
