//! WriteTxnMarkers (27), version 1 (KIP-98).
//!
//! What coordinators send to leaders, and what an administrator sends to end a hanging transaction
//! (`kafka-transactions.sh abort`, KIP-664). Left out: version 2 (KIP-1228).

use std::ops::RangeInclusive;

use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::transactions::producer;

impl Api for WriteTxnMarkersRequest {
    const SERVED: RangeInclusive<i16> = 1..=1;
    const SHAPE: &'static [Field] = &[always(Shape::Structs(&[
        always(Shape::Fixed(8 + 2 + 1)),
        always(Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))])),
        always(Shape::Fixed(4)),
    ]))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<WriteTxnMarkersResponse> {
        let markers = self.markers.iter().map(|marker| {
            let who = producer(marker.producer_id, marker.producer_epoch);
            let (commit, epoch) = (marker.transaction_result, marker.coordinator_epoch);
            results(marker, |topic, n| {
                match cluster.topics.partition(topic, n) {
                    None => return Code::UnknownTopicOrPartition.code(),
                    Some(partition) if partition.leader != Some(context.node) => {
                        return Code::NotLeaderOrFollower.code();
                    }
                    Some(_) => {}
                }
                let written = cluster.append_marker(topic, n, who.0, who.1, commit, epoch, context.now);
                written.map_or_else(|refusal| refusal.code.code(), |_| 0)
            })
        });
        Reply::Now(WriteTxnMarkersResponse::default().with_markers(markers.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> WriteTxnMarkersResponse {
        let markers = self.markers.iter().map(|marker| results(marker, |_, _| code.code()));
        WriteTxnMarkersResponse::default().with_markers(markers.collect())
    }
}

fn results(marker: &WritableTxnMarker, mut code: impl FnMut(&str, i32) -> i16) -> WritableTxnMarkerResult {
    let mut topics = Vec::with_capacity(marker.topics.len());
    for topic in &marker.topics {
        let partitions = topic.partition_indexes.iter().map(|n| {
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(*n)
                .with_error_code(code(&topic.name, *n))
        });
        topics.push(
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect()),
        );
    }
    WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics)
}
