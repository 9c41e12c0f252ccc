//! What carries out the coordinator's decisions: markers into the partitions' logs, ends of staged offsets.

use std::time::Instant;

use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

use crate::NodeId;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::Coordinated;

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
        let id = StrBytes::from_string(id.to_owned());
        if self.coordinator(Coordinated::Transaction, &id) == Some(node) {
            Ok(())
        } else {
            Err(Code::NotCoordinator)
        }
    }

    /// Writes the markers of all transactions whose decision is made and due.
    pub(in crate::embedded::kafka) fn write_markers(&mut self, now: Instant) {
        while let Some(markers) = self.transactions.poll_markers(now) {
            self.transactions.complete(&markers.transactional_id, now);
        }
    }
}
