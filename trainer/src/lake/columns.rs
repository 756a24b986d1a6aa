//! Columns of the lake: readable ones for people and their tools, and the event itself for the trainer.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use anyhow::{Context, Result};
use arrow::{
    array::{
        Array as _, ArrayRef, BinaryArray, BinaryBuilder, Float32Builder, ListArray, ListBuilder,
        RecordBatch, StringArray, StringBuilder, TimestampMillisecondArray, TimestampMillisecondBuilder,
        UInt16Array, UInt16Builder, UInt32Builder, UInt64Array, UInt64Builder,
    },
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use waf_model::event::{Event, Origin, Review, ReviewVerdict, Verdict};

use crate::state::to_hex;

/// Columns of a file of events.
pub fn event_schema() -> Arc<Schema> {
    let column = |name, kind| Field::new(name, kind, false);
    let score = |name, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        column("ts", timestamp()),
        column("request_id", DataType::Utf8),
        column("client", DataType::UInt64),
        column("network", DataType::UInt64),
        column("route", DataType::Utf8),
        column("method", DataType::Utf8),
        column("path", DataType::Utf8),
        column("status", DataType::UInt16),
        column("verdict", DataType::Utf8),
        column("origin", DataType::Utf8),
        column("rules", DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)))),
        column("rule_points", DataType::UInt32),
        score("request_distance", DataType::Float32),
        score("request_p", DataType::Float32),
        score("request_cluster", DataType::UInt16),
        score("client_distance", DataType::Float32),
        score("client_p", DataType::Float32),
        column("model", DataType::UInt64),
        column("weight", DataType::Float32),
        column("upstream_us", DataType::UInt32),
        column("query_bytes", DataType::UInt32),
        column("body_bytes", DataType::UInt32),
        column("response_bytes", DataType::UInt64),
        column("key_id", DataType::UInt64),
        column("event", DataType::Binary),
    ]))
}

/// `events` as one batch of [`event_schema`].
///
/// # Errors
/// The batch would be too large for Arrow.
pub fn events(events: &[&Event]) -> Result<RecordBatch> {
    let text = |value: &dyn Fn(&Event) -> String| -> ArrayRef {
        let mut column = StringBuilder::new();
        events.iter().for_each(|event| column.append_value(value(event)));
        Arc::new(column.finish())
    };
    let long = |value: fn(&Event) -> u64| -> ArrayRef {
        let mut column = UInt64Builder::new();
        events.iter().for_each(|event| column.append_value(value(event)));
        Arc::new(column.finish())
    };
    let int = |value: fn(&Event) -> u32| -> ArrayRef {
        let mut column = UInt32Builder::new();
        events.iter().for_each(|event| column.append_value(value(event)));
        Arc::new(column.finish())
    };
    let short = |value: fn(&Event) -> Option<u16>| -> ArrayRef {
        let mut column = UInt16Builder::new();
        events.iter().for_each(|event| column.append_option(value(event)));
        Arc::new(column.finish())
    };
    let float = |value: fn(&Event) -> Option<f32>| -> ArrayRef {
        let mut column = Float32Builder::new();
        events.iter().for_each(|event| column.append_option(value(event)));
        Arc::new(column.finish())
    };
    let mut ts = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let mut rules = ListBuilder::new(UInt32Builder::new());
    let mut wire = BinaryBuilder::new();
    for event in events {
        ts.append_value(i64::try_from(event.at_ms).unwrap_or(i64::MAX));
        rules.append_value(event.observation.rules.iter().copied().map(Some));
        wire.append_value(event.encode());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ts.finish()),
        text(&|event| request_id(&event.id)),
        long(|event| event.client),
        long(|event| event.network),
        text(&|event| event.route.clone()),
        text(&|event| event.observation.method.to_string()),
        text(&|event| event.observation.path.clone()),
        short(|event| Some(event.status)),
        text(&|event| event.verdict.name().to_owned()),
        text(&|event| origin(event.origin).to_owned()),
        Arc::new(rules.finish()),
        int(|event| event.observation.rule_points),
        float(|event| event.score.map(|score| score.request_distance)),
        float(|event| event.score.map(|score| score.request.get())),
        short(|event| event.score.map(|score| score.cluster)),
        float(|event| event.score.map(|score| score.client_distance)),
        float(|event| event.score.map(|score| score.client.get())),
        long(|event| event.model),
        float(|event| Some(event.weight)),
        int(|event| event.upstream_us),
        int(|event| event.observation.query_bytes),
        int(|event| event.observation.body_bytes),
        long(|event| event.response_bytes),
        long(|event| event.key_id),
        Arc::new(wire.finish()),
    ];
    Ok(RecordBatch::try_new(event_schema(), columns)?)
}

/// Columns that make a [`Head`].
pub const HEAD: [&str; 10] =
    ["ts", "request_id", "client", "network", "route", "status", "verdict", "origin", "rules", "key_id"];

/// What decides whether an event is learned from; read from its own columns, without decoding the event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// Request id.
    pub id: [u8; 16],
    /// Milliseconds since 1970 at arrival.
    pub at_ms: u64,
    /// Keyed hash of the client key.
    pub client: u64,
    /// Keyed hash of the client's network.
    pub network: u64,
    /// Hash of the name of the route.
    pub route: u64,
    /// Status sent to the client.
    pub status: u16,
    /// What was decided.
    pub verdict: Verdict,
    /// Who made the response.
    pub origin: Origin,
    /// Whether a rule matched.
    pub ruled: bool,
    /// Tells under which value key it was observed.
    pub key_id: u64,
}

impl Head {
    /// The head of `event`.
    pub fn of(event: &Event) -> Self {
        Self {
            id: event.id,
            at_ms: event.at_ms,
            client: event.client,
            network: event.network,
            route: route(&event.route),
            status: event.status,
            verdict: event.verdict,
            origin: event.origin,
            ruled: !event.observation.rules.is_empty(),
            key_id: event.key_id,
        }
    }
}

/// The heads in a batch that holds the columns of [`HEAD`].
#[derive(Debug)]
pub struct Heads<'a> {
    ts: &'a TimestampMillisecondArray,
    request_id: &'a StringArray,
    client: &'a UInt64Array,
    network: &'a UInt64Array,
    route: &'a StringArray,
    status: &'a UInt16Array,
    verdict: &'a StringArray,
    origin: &'a StringArray,
    rules: &'a ListArray,
    key_id: &'a UInt64Array,
}

impl<'a> Heads<'a> {
    /// # Errors
    /// A column is missing or holds something else.
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            ts: column(batch, "ts")?,
            request_id: column(batch, "request_id")?,
            client: column(batch, "client")?,
            network: column(batch, "network")?,
            route: column(batch, "route")?,
            status: column(batch, "status")?,
            verdict: column(batch, "verdict")?,
            origin: column(batch, "origin")?,
            rules: column(batch, "rules")?,
            key_id: column(batch, "key_id")?,
        })
    }

    /// The head in row `row`, which must be one of the batch.
    ///
    /// # Errors
    /// An id that is not a UUID, or a word that is no verdict or origin.
    pub fn get(&self, row: usize) -> Result<Head> {
        let id = self.request_id.value(row);
        let word = self.verdict.value(row);
        let made_by = self.origin.value(row);
        Ok(Head {
            id: parse_request_id(id).with_context(|| format!("request id {id} is not a UUID"))?,
            at_ms: u64::try_from(self.ts.value(row)).unwrap_or(0),
            client: self.client.value(row),
            network: self.network.value(row),
            route: route(self.route.value(row)),
            status: self.status.value(row),
            verdict: Verdict::ALL
                .into_iter()
                .find(|known| known.name() == word)
                .with_context(|| format!("{word} is no verdict"))?,
            origin: [Origin::Upstream, Origin::Gateway]
                .into_iter()
                .find(|known| origin(*known) == made_by)
                .with_context(|| format!("{made_by} is no origin"))?,
            ruled: self.rules.value_length(row) > 0,
            key_id: self.key_id.value(row),
        })
    }
}

/// The encoded events of a batch.
///
/// # Errors
/// The column is missing or holds something else.
pub fn wire(batch: &RecordBatch) -> Result<&BinaryArray> {
    column(batch, "event")
}

fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T> {
    let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
    column.with_context(|| format!("column {name} is missing or of another type"))
}

/// Columns of a file of reviews. `request_id` is null when a client was judged as a whole.
pub fn review_schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("at", timestamp(), false),
        Field::new("request_id", DataType::Utf8, true),
        Field::new("client", DataType::UInt64, false),
        Field::new("verdict", DataType::Utf8, false),
    ]))
}

/// `reviews` as one batch of [`review_schema`].
///
/// # Errors
/// The batch would be too large for Arrow.
pub fn reviews(reviews: &[Review]) -> Result<RecordBatch> {
    let at = reviews.iter().map(|review| i64::try_from(review.at_ms).unwrap_or(i64::MAX));
    let at = TimestampMillisecondArray::from_iter_values(at).with_timezone("UTC");
    let request: StringArray =
        reviews.iter().map(|review| review.request.map(|id| request_id(&id))).collect();
    let client = UInt64Array::from_iter_values(reviews.iter().map(|review| review.client));
    let verdict = StringArray::from_iter_values(reviews.iter().map(|review| review_verdict(review.verdict)));
    let columns: Vec<ArrayRef> = vec![Arc::new(at), Arc::new(request), Arc::new(client), Arc::new(verdict)];
    Ok(RecordBatch::try_new(review_schema(), columns)?)
}

/// Reads a batch of [`review_schema`].
///
/// # Errors
/// A column is missing or holds something else.
pub fn read_reviews(batch: &RecordBatch) -> Result<Vec<Review>> {
    let at: &TimestampMillisecondArray = column(batch, "at")?;
    let request: &StringArray = column(batch, "request_id")?;
    let client: &UInt64Array = column(batch, "client")?;
    let verdict: &StringArray = column(batch, "verdict")?;
    at.iter()
        .zip(request.iter())
        .zip(client.iter().zip(verdict.iter()))
        .map(|((at, request), (client, verdict))| {
            let request = match request {
                Some(id) => {
                    Some(parse_request_id(id).with_context(|| format!("request id {id} is not a UUID"))?)
                }
                None => None,
            };
            let verdict = verdict.unwrap_or_default();
            Ok(Review {
                request,
                client: client.unwrap_or_default(),
                verdict: parse_review_verdict(verdict)
                    .with_context(|| format!("verdict {verdict} is neither false_positive nor confirmed"))?,
                at_ms: at.and_then(|at| u64::try_from(at).ok()).unwrap_or_default(),
            })
        })
        .collect()
}

/// A request id as UUID text.
pub fn request_id(id: &[u8; 16]) -> String {
    let mut text = to_hex(id);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// Reads UUID text, with or without hyphens.
pub fn parse_request_id(text: &str) -> Option<[u8; 16]> {
    let mut id = 0_u128;
    let mut digits = 0;
    for byte in text.bytes().filter(|byte| *byte != b'-') {
        id = id << 4 | u128::from(char::from(byte).to_digit(16)?);
        digits += 1;
    }
    (digits == 32).then(|| id.to_be_bytes())
}

/// Reads the text form of a review's verdict.
pub fn parse_review_verdict(text: &str) -> Option<ReviewVerdict> {
    [ReviewVerdict::FalsePositive, ReviewVerdict::Confirmed]
        .into_iter()
        .find(|verdict| review_verdict(*verdict) == text)
}

/// The same in every run.
fn route(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Upstream => "upstream",
        Origin::Gateway => "gateway",
    }
}

fn review_verdict(verdict: ReviewVerdict) -> &'static str {
    match verdict {
        ReviewVerdict::FalsePositive => "false_positive",
        ReviewVerdict::Confirmed => "confirmed",
    }
}
