//! Records from Redis streams, by consumer group.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use redis::{
    Connection, FromRedisValue, RedisResult, Value, cmd,
    streams::{StreamId, StreamReadReply},
};
use waf_model::{event::Review, keys, observation::ValueKey};

use super::{BATCH, Batch, Source};
use crate::{
    lake::columns::{parse_request_id, parse_review_verdict},
    state::random,
};

/// How long a read waits for the first new entry.
const BLOCK: Duration = Duration::from_millis(200);

/// An entry that another consumer holds for so long is taken over.
const ABANDONED: Duration = Duration::from_secs(60);

/// How long to wait for any answer before the connection is given up.
const ANSWER: Duration = Duration::from_secs(30);

const STREAMS: [&str; 3] = [keys::EVENTS, keys::REVIEWS, keys::FULL_RECORDS];

/// The streams of events, reviews and whole requests of one Redis.
pub struct Streams {
    url: String,
    consumer: String,
    connection: Option<Connection>,
    /// Entries were delivered to this consumer and are not acknowledged: those first.
    pending: bool,
    claimed: Option<Instant>,
    delivered: [Vec<String>; STREAMS.len()],
}

impl Streams {
    /// The streams at `url` (`redis://host:port/db`). `consumer` names this trainer in the group: after a
    /// restart under the same name it gets back what it had not acknowledged.
    pub fn new(url: &str, consumer: &str) -> Self {
        Self {
            url: url.to_owned(),
            consumer: consumer.to_owned(),
            connection: None,
            pending: true,
            claimed: None,
            delivered: Default::default(),
        }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let mut connection = connect(&self.url)?;
            for stream in STREAMS {
                create_group(&mut connection, stream)
                    .with_context(|| format!("cannot make the consumer group on {stream} at {}", self.url))?;
            }
            self.pending = true;
            self.connection = Some(connection);
        }
        self.connection.as_mut().context("not connected")
    }

    /// Runs `ask` on the connection; after a failure the next call connects anew.
    fn ask<T>(&mut self, ask: impl FnOnce(&mut Connection, &str) -> RedisResult<T>) -> Result<T> {
        let consumer = self.consumer.clone();
        let answer = ask(self.connection()?, &consumer);
        if answer.is_err() {
            self.connection = None;
        }
        answer.with_context(|| format!("Redis at {}", self.url))
    }

    /// Takes over what another consumer left behind.
    fn claim_abandoned(&mut self) -> Result<()> {
        if self.claimed.is_some_and(|at| at.elapsed() < ABANDONED) {
            return Ok(());
        }
        self.claimed = Some(Instant::now());
        for stream in STREAMS {
            let mut from = "0-0".to_owned();
            loop {
                let (next, claimed, _gone): (String, Vec<String>, Vec<String>) =
                    self.ask(|connection, consumer| {
                        cmd("XAUTOCLAIM")
                            .arg(stream)
                            .arg(keys::TRAINER_GROUP)
                            .arg(consumer)
                            .arg(ABANDONED.as_millis() as u64)
                            .arg(&from)
                            .arg("COUNT")
                            .arg(1000)
                            .arg("JUSTID")
                            .query(connection)
                    })?;
                self.pending |= !claimed.is_empty();
                if next == "0-0" {
                    break;
                }
                from = next;
            }
        }
        Ok(())
    }

    /// Entries of all streams: those already delivered to this consumer (`0`) or new ones (`>`).
    fn fetch(&mut self, from: &str) -> Result<StreamReadReply> {
        self.ask(|connection, consumer| {
            let answer: Option<StreamReadReply> = cmd("XREADGROUP")
                .arg("GROUP")
                .arg(keys::TRAINER_GROUP)
                .arg(consumer)
                .arg("COUNT")
                .arg(BATCH)
                .arg("BLOCK")
                .arg(BLOCK.as_millis() as u64)
                .arg("STREAMS")
                .arg(&STREAMS)
                .arg([from; STREAMS.len()].as_slice())
                .query(connection)?;
            Ok(answer.unwrap_or_default())
        })
    }

    /// Drops what every gateway has written and this group has finished; nothing unacknowledged.
    fn trim(&mut self) -> Result<()> {
        for stream in STREAMS {
            self.ask(|connection, _| {
                let (count, lowest): (u64, Option<String>) = {
                    let (count, lowest, _, _): (u64, Option<String>, Value, Value) =
                        cmd("XPENDING").arg(stream).arg(keys::TRAINER_GROUP).query(connection)?;
                    (count, lowest)
                };
                let behind = match lowest {
                    Some(lowest) if count > 0 => Some(lowest),
                    _ => last_delivered(connection, stream)?,
                };
                match behind {
                    Some(id) => cmd("XTRIM").arg(stream).arg("MINID").arg("~").arg(id).exec(connection),
                    None => Ok(()),
                }
            })?;
        }
        Ok(())
    }
}

impl Source for Streams {
    fn read(&mut self) -> Result<Option<Batch>> {
        self.connection()?;
        self.claim_abandoned()?;
        let mut reply = StreamReadReply::default();
        if self.pending {
            reply = self.fetch("0")?;
            self.pending = reply.keys.iter().any(|key| !key.ids.is_empty());
        }
        if !self.pending {
            reply = self.fetch(">")?;
        }
        let mut batch = Batch::default();
        self.delivered = Default::default();
        for (stream, delivered) in STREAMS.iter().zip(&mut self.delivered) {
            for entry in reply.keys.iter().filter(|key| key.key == *stream).flat_map(|key| &key.ids) {
                match *stream {
                    _ if entry.map.is_empty() => batch.damaged += 1,
                    keys::EVENTS => take_event(entry, &mut batch),
                    keys::REVIEWS => take_review(entry, &mut batch),
                    _ => take_full(entry, &mut batch),
                }
                delivered.push(entry.id.clone());
            }
        }
        if self.delivered.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        let [events, reviews, full] = &self.delivered;
        batch.events_range = range(events);
        batch.reviews_range = range(reviews);
        batch.full_range = range(full);
        // Until they are acknowledged: should that fail, they are read again first.
        self.pending = true;
        Ok(Some(batch))
    }

    fn acknowledge(&mut self) -> Result<()> {
        let delivered = std::mem::take(&mut self.delivered);
        for (stream, ids) in STREAMS.iter().zip(&delivered) {
            if !ids.is_empty() {
                self.ask(|connection, _| {
                    cmd("XACK").arg(stream).arg(keys::TRAINER_GROUP).arg(ids).exec(connection)
                })?;
            }
        }
        self.trim()
    }

    fn name(&self) -> String {
        self.url.clone()
    }
}

/// A connection of its own, for reads that wait.
///
/// # Errors
/// The address is wrong or nobody answers.
pub fn connect(url: &str) -> Result<Connection> {
    let client = redis::Client::open(url)
        .with_context(|| format!("{url} is not a Redis address; write redis://host:port"))?;
    let connection = client
        .get_connection_with_timeout(Duration::from_secs(5))
        .with_context(|| format!("cannot reach Redis at {url}"))?;
    connection.set_read_timeout(Some(ANSWER))?;
    connection.set_write_timeout(Some(ANSWER))?;
    Ok(connection)
}

/// The site key that the gateways wrote, if they did.
///
/// # Errors
/// Redis is away, or the key is not 16 bytes.
pub fn site_key(connection: &mut Connection) -> Result<Option<ValueKey>> {
    let bytes: Option<Vec<u8>> = cmd("GET").arg(keys::SITE_KEY).query(connection)?;
    match bytes {
        None => Ok(None),
        Some(bytes) => match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Some(ValueKey(key))),
            Err(_) => bail!("Redis key {} must hold 16 bytes, not {}", keys::SITE_KEY, bytes.len()),
        },
    }
}

/// Makes the site key unless a gateway did so meanwhile; the key that counts.
///
/// # Errors
/// Redis is away, or holds something else.
pub fn make_site_key(connection: &mut Connection) -> Result<ValueKey> {
    let fresh = random::<16>()?;
    cmd("SET").arg(keys::SITE_KEY).arg(&fresh).arg("NX").exec(connection)?;
    site_key(connection)?.context("the site key vanished while it was made; try again")
}

fn create_group(connection: &mut Connection, stream: &str) -> RedisResult<()> {
    let made = cmd("XGROUP")
        .arg("CREATE")
        .arg(stream)
        .arg(keys::TRAINER_GROUP)
        .arg("0")
        .arg("MKSTREAM")
        .exec(connection);
    match made {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        made => made,
    }
}

fn last_delivered(connection: &mut Connection, stream: &str) -> RedisResult<Option<String>> {
    let groups: redis::streams::StreamInfoGroupsReply =
        cmd("XINFO").arg("GROUPS").arg(stream).query(connection)?;
    let ours = groups.groups.into_iter().find(|group| group.name == keys::TRAINER_GROUP);
    Ok(ours.map(|group| group.last_delivered_id))
}

/// `first_last` of the ids; the same pending entries always have the same range.
fn range(ids: &[String]) -> String {
    match (ids.first(), ids.last()) {
        (Some(first), Some(last)) => format!("{first}_{last}"),
        _ => String::new(),
    }
}

fn take_event(entry: &StreamId, batch: &mut Batch) {
    match field::<Vec<u8>>(entry, "d") {
        Some(record) => batch.take_event(&record),
        None => batch.rejected.push(format!("entry {} has no field d", entry.id).into_bytes()),
    }
}

fn take_full(entry: &StreamId, batch: &mut Batch) {
    match field::<Vec<u8>>(entry, "d") {
        Some(record) => batch.take_full(&record),
        None => batch.rejected.push(format!("entry {} has no field d", entry.id).into_bytes()),
    }
}

fn take_review(entry: &StreamId, batch: &mut Batch) {
    let review = || -> Option<Review> {
        let request = match field::<String>(entry, "request").filter(|text| !text.is_empty()) {
            Some(text) => Some(parse_request_id(&text)?),
            None => None,
        };
        Some(Review {
            request,
            client: field::<String>(entry, "client").and_then(|text| text.parse().ok()).unwrap_or_default(),
            verdict: parse_review_verdict(&field::<String>(entry, "verdict")?)?,
            at_ms: field(entry, "at").unwrap_or_default(),
        })
    };
    match review() {
        Some(review) => batch.reviews.push(review),
        None => {
            tracing::warn!(
                id = entry.id,
                "review ignored: it needs verdict (false_positive or confirmed), and request (a request id) or client"
            );
            batch.damaged += 1;
        }
    }
}

fn field<T: FromRedisValue>(entry: &StreamId, name: &str) -> Option<T> {
    entry.map.get(name).and_then(|value| T::from_redis_value_ref(value).ok())
}
