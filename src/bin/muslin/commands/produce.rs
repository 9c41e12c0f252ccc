//! `produce`: a Kafka record per line of stdin, each by itself or all in one transaction.

use std::time::Duration;

use bytes::Bytes;
use muslin::codec::compression::Compression;
use muslin::kafka::{Placed, Producer, ProducerBuilder, Queued, Record, Transaction};
use muslin::{Error, ErrorKind, Result, Topic};

use super::sending::{Sending, Source, send_all};
use crate::args::Produce;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;
use crate::record;

/// How long the producer may take to close once everything is confirmed.
const CLOSE: Duration = Duration::from_secs(5);

enum To<'a> {
    Producer(Producer),
    Transaction(Transaction<'a>),
}

/// How a line becomes a record.
struct Form {
    topic: Topic,
    json: bool,
    separator: Option<Vec<u8>>,
    partition: Option<i32>,
    headers: Vec<(String, Bytes)>,
}

struct Records<'a> {
    to: To<'a>,
    form: Form,
}

impl Form {
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

impl Sending for Records<'_> {
    type Tag = ();
    type Done = Placed;
    type Queued = Queued;

    async fn put(&self, line: Bytes) -> Result<((), Queued)> {
        let form = &self.form;
        let parts = form.parse(line)?;
        let mut record = Record::to_topic(form.topic.clone());
        if let Some(key) = parts.key {
            record = record.key(key);
        }
        if let Some(value) = parts.value {
            record = record.value(value);
        }
        if let Some(partition) = form.partition.or(parts.partition) {
            record = record.partition(partition);
        }
        if let Some(timestamp) = parts.timestamp {
            record = record.timestamp(timestamp);
        }
        for (name, value) in parts.headers {
            record = record.header(name, value);
        }
        for (name, value) in &form.headers {
            record = record.header(name.clone(), Some(value.clone()));
        }
        let queued = match &self.to {
            To::Producer(producer) => producer.enqueue(record).await?,
            To::Transaction(transaction) => transaction.enqueue(record).await?,
        };
        Ok(((), queued))
    }

    fn print(&self, (): (), _: Placed, _: &mut Data) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Produce) -> Outcome {
    let topic = Topic::new(&args.topic).map_err(Failure::usage)?;
    let compression =
        args.compression.as_deref().map(str::parse::<Compression>).transpose().map_err(Failure::usage)?;
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let mut builder = context.settings.producer(client.producer()).map_err(Failure::usage)?;
    if let Some(compression) = compression {
        builder = builder.compression(compression);
    }
    let id = args.transactional_id;
    let form = Form {
        topic,
        json: context.console.json,
        separator: args.key_separator,
        partition: args.partition,
        headers: args.header.into_iter().map(|(n, v)| (n, Bytes::from(v))).collect(),
    };
    let ended = match id {
        None => one_by_one(&context, builder, form).await?,
        Some(id) => in_one_transaction(&context, builder, id, form).await?,
    };
    let _ = client.close().await;
    Ok(ended)
}

async fn one_by_one(context: &Context, builder: ProducerBuilder, form: Form) -> Outcome {
    let Some(producer) = context.stop.unless(builder.build()).await.transpose().map_err(Failure::setup)?
    else {
        return Ok(Ended::Interrupted);
    };
    let records = Records { to: To::Producer(producer.clone()), form };
    let ended = send_all(context, Source::stdin(), &records).await?;
    // Everything is settled by now: what closing fails with changes nothing.
    let _ = producer.close(CLOSE).await;
    Ok(ended)
}

/// Commits at the end of the lines, where all of them were sent; else nothing of them counts.
async fn in_one_transaction(context: &Context, builder: ProducerBuilder, id: String, form: Form) -> Outcome {
    let build = builder.transactional(id).build();
    let Some(mut producer) = context.stop.unless(build).await.transpose().map_err(Failure::setup)? else {
        return Ok(Ended::Interrupted);
    };
    let mut outcome = {
        let transaction = producer.begin().await.map_err(Failure::setup)?;
        let records = Records { to: To::Transaction(transaction), form };
        let outcome = send_all(context, Source::stdin(), &records).await;
        let To::Transaction(transaction) = records.to else { return outcome };
        match outcome {
            Ok(Ended::Done) => transaction.commit().await.map(|()| Ended::Done).map_err(Failure::from),
            failed => {
                context.console.error("the transaction is aborted: none of its records counts");
                // What the lines failed for is told; its coordinator aborts what cannot be aborted now.
                let _ = transaction.abort().await;
                failed
            }
        }
    };
    if let Err(e) = producer.close(CLOSE).await
        && outcome.is_ok()
    {
        outcome = Err(e.into());
    }
    outcome
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
