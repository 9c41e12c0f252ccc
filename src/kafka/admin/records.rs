//! Records deleted from the beginning of a log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use super::Admin;
use super::spread::{judge_leader, left_out, named};
use crate::kafka::client::topic_name;
use crate::kafka::offsets::Place;
use crate::kafka::wire::Link;
use crate::{Error, ErrorKind, Offset, Partition, Result, Topic};

/// How many partitions one request names.
const TOGETHER: usize = 1000;
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// What is asked of a leader.
type Asked = Vec<(Place, Offset)>;

impl Admin {
    /// Deletes the records of a topic's partitions below these offsets (KIP-107); the offset -1 stands for the end. Gives
    /// where each log begins now. They are gone for every reader, and there is no way back. One request a leader.
    ///
    /// A deletion whose answer was lost is asked for again, until the request timeout: that changes nothing more.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] for an offset beyond the end.
    /// - [`ErrorKind::NotFound`] where the topic or partition is not there; [`ErrorKind::Denied`] without the right Delete on
    ///   the topic; [`ErrorKind::Rejected`] for a topic that is compacted and nothing else.
    /// - Errors of the connection: [`Error::is_ambiguous`] tells whether records may have been deleted.
    ///
    /// All partitions are tried, and the first that failed is named; others may have been deleted.
    pub async fn delete_records(
        &self,
        topic: &Topic,
        before: &[(Partition, Offset)],
    ) -> Result<BTreeMap<Partition, Offset>> {
        let timeout_ms = self.timeout_ms();
        let wanted: BTreeMap<Partition, Offset> = before.iter().copied().collect();
        let asked = wanted.into_iter().map(|(p, offset)| ((topic.clone(), p), offset)).collect();
        let inner = &self.client.inner;
        let delete = |link, asked| delete(link, asked, timeout_ms);
        let done = inner.at_leaders(asked, TOGETHER, inner.settings.request_timeout, delete).await;
        let (mut starts, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for ((_, partition), _, start) in done {
            match start {
                Ok(start) => drop(starts.insert(partition, start)),
                Err(e) => drop(failed.insert(partition, e)),
            }
        }
        match failed.into_values().next() {
            None => Ok(starts),
            Some(e) => Err(e.context("delete records")),
        }
    }
}

async fn delete(
    link: Arc<Link>,
    asked: Asked,
    timeout_ms: i32,
) -> Result<Vec<(Place, Offset, Result<Offset>)>> {
    let mut topics: BTreeMap<&Topic, Vec<DeleteRecordsPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in &asked {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(partition.0).with_offset(offset.0);
        topics.entry(topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
    });
    let request = DeleteRecordsRequest::default().with_timeout_ms(timeout_ms).with_topics(topics.collect());
    let answer = link.call(request).await?;
    let mut told = HashMap::new();
    for t in &answer.topics {
        for p in &t.partitions {
            told.insert((t.name.0.as_str(), p.partition_index), (p.error_code, p.low_watermark));
        }
    }
    let outcome = |(place, before): (Place, Offset)| {
        let start = match told.get(&(place.0.as_str(), place.1.0)) {
            None => Err(left_out(named(&place)).ambiguous()),
            Some((OFFSET_OUT_OF_RANGE, _)) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{}: the offset {before} is beyond its end; nothing was deleted there",
                    named(&place)
                ),
            )),
            Some((code, start)) => judge_leader(*code, || named(&place)).map(|()| Offset(*start)),
        };
        (place, before, start)
    };
    Ok(asked.into_iter().map(outcome).collect())
}
