//! `produce`: a Kafka record per line of stdin.

use std::time::Duration;

use bytes::Bytes;
use muslin::codec::compression::Compression;
use muslin::kafka::{Placed, Producer, Queued, Record};
use muslin::{Error, ErrorKind, Result, Topic};

use super::sending::{Sending, Source, send_all};
use crate::args::Produce;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;
use crate::record;

/// How long the producer may take to close once everything is confirmed.
const CLOSE: Duration = Duration::from_secs(5);

struct Records {
    producer: Producer,
    topic: Topic,
    json: bool,
    separator: Option<Vec<u8>>,
    partition: Option<i32>,
    headers: Vec<(String, Bytes)>,
}

impl Records {
    /// The parts of a record by the line.
    fn parse(&self, line: Bytes) -> Result<record::Record> {
        if self.json {
            return record::Record::parse(&line).map_err(|why| Error::new(ErrorKind::Malformed, why));
        }
        let at = self.separator.as_ref().and_then(|s| Some((find(&line, s)?, s.len())));
        let (key, value) = match at {
            Some((at, length)) => (Some(line.slice(..at)), line.slice(at + length..)),
            None => (None, line),
        };
        Ok(record::Record { key, value: Some(value), ..record::Record::default() })
    }
}

/// Where `part` begins in `line`; `part` is not empty.
fn find(line: &[u8], part: &[u8]) -> Option<usize> {
    line.windows(part.len()).position(|w| w == part)
}

impl Sending for Records {
    type Tag = ();
    type Done = Placed;
    type Queued = Queued;

    async fn put(&self, line: Bytes) -> Result<((), Queued)> {
        let parts = self.parse(line)?;
        let mut record = Record::to_topic(self.topic.clone());
        if let Some(key) = parts.key {
            record = record.key(key);
        }
        if let Some(value) = parts.value {
            record = record.value(value);
        }
        if let Some(partition) = self.partition.or(parts.partition) {
            record = record.partition(partition);
        }
        if let Some(timestamp) = parts.timestamp {
            record = record.timestamp(timestamp);
        }
        for (name, value) in parts.headers {
            record = record.header(name, value);
        }
        for (name, value) in &self.headers {
            record = record.header(name.clone(), Some(value.clone()));
        }
        Ok(((), self.producer.enqueue(record).await?))
    }

    fn print(&self, (): (), _: Placed, _: &mut Data) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Produce) -> Outcome {
    if args.transactional_id.is_some() {
        return Err(Failure::wrong_use("--transactional-id: transactions are not in this build yet"));
    }
    let topic = Topic::new(&args.topic).map_err(Failure::usage)?;
    let compression =
        args.compression.as_deref().map(str::parse::<Compression>).transpose().map_err(Failure::usage)?;
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let mut builder = context.settings.producer(client.producer()).map_err(Failure::usage)?;
    if let Some(compression) = compression {
        builder = builder.compression(compression);
    }
    let Some(producer) = context.stop.unless(builder.build()).await.transpose().map_err(Failure::setup)?
    else {
        return Ok(Ended::Interrupted);
    };
    let records = Records {
        producer,
        topic,
        json: context.console.json,
        separator: args.key_separator,
        partition: args.partition,
        headers: args.header.into_iter().map(|(n, v)| (n, Bytes::from(v))).collect(),
    };
    let ended = send_all(&context, Source::stdin(), &records).await?;
    // Everything is settled by now: what closing fails with changes nothing.
    let _ = records.producer.close(CLOSE).await;
    let _ = client.close().await;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_is_found_where_it_first_stands() {
        assert_eq!(find(b"a::b::c", b"::"), Some(1));
        assert_eq!(find(b"a:b", b"::"), None);
        assert_eq!(find(b"", b":"), None);
    }
}
