//! What carries out the coordinator's decisions: markers into the partitions' logs, ends of staged offsets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

use super::{Markers, Producer, Touched};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::Coordinated;
use crate::{NodeId, ProducerEpoch, ProducerId};

/// Markers that could not be written, for a leader is away, are tried again after it.
const AGAIN: Duration = Duration::from_millis(100);
/// The epoch of all coordinators: their state is one, so that none can be outdated.
const COORDINATOR_EPOCH: i32 = 0;

impl Cluster {
    /// Is this broker the coordinator of the transactional id?
    ///
    /// # Errors
    /// NOT_COORDINATOR.
    pub(in crate::embedded::kafka) fn check_transaction_coordinator(
        &self,
        node: NodeId,
        id: &str,
    ) -> Result<(), Code> {
        if self.transaction_coordinator(id) == Some(node) { Ok(()) } else { Err(Code::NotCoordinator) }
    }

    fn transaction_coordinator(&self, id: &str) -> Option<NodeId> {
        self.coordinator(Coordinated::Transaction, &StrBytes::from_string(id.to_owned()))
    }

    /// May this batch of a Produce be appended, as far as its transaction goes? What is not transactional may. A batch
    /// whose transaction is open in the log already is not asked about again, as by the real broker.
    ///
    /// # Errors
    /// TRANSACTIONAL_ID_AUTHORIZATION_FAILED for a request without a transactional id, NOT_ENOUGH_REPLICAS while there
    /// is no coordinator, else as [`Transactions::verify`](super::Transactions::verify).
    pub(in crate::embedded::kafka) fn verify_batch(
        &mut self,
        transactional_id: Option<&str>,
        (topic, partition): (&str, i32),
        batch: &Bytes,
        produce_version: i16,
        now: Instant,
    ) -> Result<(), Code> {
        let Some(producer) = transactional_producer(batch) else { return Ok(()) };
        let id = transactional_id.ok_or(Code::TransactionalIdAuthorizationFailed)?;
        let log = self.topics.partition(topic, partition).map(|partition| &partition.log);
        let known = log.and_then(|log| log.producers().get(producer.0.0));
        if known.is_some_and(|known| known.open_since.is_some() && known.epoch == producer.1.0) {
            return Ok(());
        }
        if self.transaction_coordinator(id).is_none() {
            return Err(Code::NotEnoughReplicas);
        }
        self.transactions.verify(id, producer, (topic, partition), produce_version, now)
    }

    /// Writes the markers of all transactions whose decision is made and due.
    pub(in crate::embedded::kafka) fn write_markers(&mut self, now: Instant) {
        while let Some(markers) = self.transactions.poll_markers(now) {
            let id = &markers.transactional_id;
            if self.transaction_coordinator(id).is_none() {
                self.transactions.postpone(id, &Touched::default(), now + AGAIN);
                continue;
            }
            let written = self.write_all(&markers, now);
            if written == markers.touched {
                self.transactions.complete(id, now);
            } else {
                self.transactions.postpone(id, &written, now + AGAIN);
            }
        }
    }

    /// Writes what can be written; gives what needs no marker any more.
    fn write_all(&mut self, markers: &Markers, now: Instant) -> Touched {
        let mut written = Touched::default();
        let (id, epoch) = markers.producer;
        for (topic, n) in &markers.touched.partitions {
            let result = self.append_marker(topic, *n, id, epoch, markers.commit, COORDINATOR_EPOCH, now);
            // A topic that is gone needs none; a producer that is newer there has ended this one's transaction.
            if !matches!(result, Err(refusal) if refusal.code == Code::LeaderNotAvailable) {
                written.partitions.insert((topic.clone(), *n));
            }
        }
        for group in &markers.touched.groups {
            let name = StrBytes::from_string(group.clone());
            self.groups.complete_transaction(&name, id.0, markers.commit);
            written.groups.insert(group.clone());
        }
        written
    }
}

/// The producer of a transactional batch. Fields of record batches version 2: attributes at 21, producer id at 43,
/// epoch at 51.
fn transactional_producer(batch: &Bytes) -> Option<Producer> {
    const TRANSACTIONAL: u8 = 0x10;
    let magic = *batch.get(16)?;
    if magic != 2 || batch.get(22)? & TRANSACTIONAL == 0 {
        return None;
    }
    let id = i64::from_be_bytes(*batch.get(43..)?.first_chunk()?);
    let epoch = i16::from_be_bytes(*batch.get(51..)?.first_chunk()?);
    Some((ProducerId(id), ProducerEpoch(epoch)))
}
