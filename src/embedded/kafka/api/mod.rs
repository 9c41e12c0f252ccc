//! The requests, one file per API key. Each file's head lists versions, behaviour and what is left out.
//!
//! A request's array lengths are checked against its bytes before anything is decoded, by the same walker that guards
//! the client (`kafka::wire::shape`).

use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
pub(super) use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest,
    AlterPartitionReassignmentsRequest, AlterUserScramCredentialsRequest, ApiVersionsRequest,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest, TxnOffsetCommitRequest,
    WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message, Request, StrBytes};

use super::carry::Struck;
use super::cluster::Cluster;
use super::connection::Pending;
use super::security::Admission;
use crate::NodeId;
use crate::embedded::machine::{ConnectionId, Output};
pub(super) use crate::kafka::shape::{Field, Shape, always, check, since};

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_user_scram_credentials;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;
mod txn_offset_commit;
mod write_txn_markers;

pub(super) use fetch::{AllSessions, Waiting};

pub(super) use join_group::response as joined;
pub(super) use sync_group::response as synced;

/// Who asks, where and when.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) connection: ConnectionId,
    /// The broker that was asked.
    pub(super) node: NodeId,
    pub(super) client_id: Option<StrBytes>,
    pub(super) version: i16,
    pub(super) pending: Pending,
    pub(super) now: Instant,
    /// Bytes of the whole request.
    pub(super) size: usize,
    /// The faults have had their say.
    pub(super) struck: bool,
}

/// What a handler gives back.
pub(super) enum Reply<R> {
    /// The answer.
    Now(R),
    /// The handler kept the connection's number and calls [`Cluster::answer`] when the answer is known.
    Later,
    /// The answer's body, encoded.
    Encoded(Vec<Bytes>),
    /// No answer at all (Produce with acks=0); the next request is taken.
    Never,
}

/// A request that the cluster serves.
pub(super) trait Api: Request + 'static {
    /// The versions served.
    const SERVED: RangeInclusive<i16>;
    /// The request's fields.
    const SHAPE: &'static [Field];

    /// Does what is asked.
    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<Self::Response>;

    /// The answer that refuses the whole request with one error, in every place where a client looks for it.
    fn refuse(&self, code: Code, version: i16) -> Self::Response;

    /// Writes an answer's body as one or more chunks.
    fn write_body(response: &Self::Response, version: i16, out: &mut Vec<Bytes>) -> Result<(), String> {
        let size = response.compute_size(version).map_err(|e| e.to_string())?;
        let mut body = BytesMut::with_capacity(size);
        response.encode(&mut body, version).map_err(|e| e.to_string())?;
        out.push(body.freeze());
        Ok(())
    }
}

macro_rules! apis {
    ($($request:ident,)*) => {
        /// Every API with the versions served: `(key, lowest, highest)`.
        pub(super) const SERVED: &[(i16, i16, i16)] =
            &[$((<$request as Request>::KEY, *$request::SERVED.start(), *$request::SERVED.end()),)*];

        /// Hands a request to its handler.
        pub(super) fn dispatch(cluster: &mut Cluster, context: &Context, body: Bytes) {
            match context.pending.key {
                $(key if key == <$request as Request>::KEY => run::<$request>(cluster, context, body),)*
                _ => cluster.end(context.connection, Output::Close),
            }
        }

        /// Shows every API to a test.
        #[cfg(test)]
        fn visit_all(visit: &mut impl Visit) {
            $(visit.visit::<$request>();)*
        }

        fn header_version(key: i16, version: i16) -> Option<i16> {
            match key {
                $(key if key == <$request as Request>::KEY => {
                    <$request as Message>::VERSIONS.contains(version).then(|| $request::header_version(version))
                })*
                _ => None,
            }
        }
    };
}

apis! {
    ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest,
    DescribeGroupsRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListGroupsRequest,
    OffsetDeleteRequest,
    SyncGroupRequest,
    TxnOffsetCommitRequest,
    ProduceRequest,
    FetchRequest,
    ListOffsetsRequest,
    MetadataRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    FindCoordinatorRequest,
    ApiVersionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteRecordsRequest,
    OffsetForLeaderEpochRequest,
    CreatePartitionsRequest,
    DescribeConfigsRequest,
    AlterConfigsRequest,
    IncrementalAlterConfigsRequest,
    DescribeClusterRequest,
    DescribeTopicPartitionsRequest,
    ElectLeadersRequest,
    DescribeLogDirsRequest,
    AlterPartitionReassignmentsRequest,
    ListPartitionReassignmentsRequest,
    InitProducerIdRequest,
    DeleteGroupsRequest,
    AddOffsetsToTxnRequest,
    EndTxnRequest,
    AddPartitionsToTxnRequest,
    WriteTxnMarkersRequest,
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    ListTransactionsRequest,
    SaslHandshakeRequest,
    SaslAuthenticateRequest,
    DescribeUserScramCredentialsRequest,
    AlterUserScramCredentialsRequest,
}

/// What a test does with every API.
#[cfg(test)]
trait Visit {
    fn visit<R: Api>(&mut self);
}

trait Contains {
    fn contains(&self, version: i16) -> bool;
}
impl Contains for kafka_protocol::protocol::VersionRange {
    fn contains(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

fn run<R: Api>(cluster: &mut Cluster, context: &Context, body: Bytes) {
    let admission = cluster.admission(context);
    if admission == Admission::Close {
        tracing::debug!(connection = ?context.connection, api = R::KEY, "a request before a login; the connection ends");
        return cluster.end(context.connection, Output::Close);
    }
    let request = match decode::<R>(body.clone(), context.version) {
        Ok(request) => request,
        Err(why) => {
            tracing::debug!(connection = ?context.connection, api = R::KEY, version = context.version, why, "a malformed request; the connection ends");
            cluster.end(context.connection, Output::Close);
            return;
        }
    };
    if admission == Admission::Illegal {
        let refusal = request.refuse(Code::IllegalSaslState, context.version);
        cluster.answer::<R>(context.connection, &refusal);
        return cluster.end(context.connection, Output::Close);
    }
    if !context.struck {
        match cluster.strike::<R>(context, &request, &body) {
            Struck::Work => {}
            Struck::Done => return,
        }
    }
    drop(body);
    match request.handle(cluster, context) {
        Reply::Now(response) => cluster.answer::<R>(context.connection, &response),
        Reply::Encoded(body) => cluster.answer_encoded::<R>(context.connection, body),
        Reply::Later => {}
        Reply::Never => {
            if let Some(state) = cluster.connection(context.connection) {
                state.pending = None;
            }
            cluster.carry_nothing(context.connection);
        }
    }
}

/// Decodes a request's body: first its lengths are checked, then it is read.
fn decode<R: Api>(mut body: Bytes, version: i16) -> Result<R, String> {
    if !R::SERVED.contains(&version) {
        return Err(format!("version {version} is not served"));
    }
    let rest = check(&body, version, R::header_version(version) >= 2, R::SHAPE)?;
    if !rest.is_empty() {
        return Err(format!("{} bytes too many", rest.len()));
    }
    let request = R::decode(&mut body, version).map_err(|e| e.to_string())?;
    if body.is_empty() { Ok(request) } else { Err(format!("{} bytes were not read", body.len())) }
}

/// A request's header, and the rest.
pub(super) struct Head {
    pub(super) pending: Pending,
    pub(super) client_id: Option<StrBytes>,
    pub(super) body: Bytes,
    /// ApiVersions in a version that is not known here.
    pub(super) unknown_version: bool,
}

/// Reads a request's header (`RequestHeader` versions 1 and 2).
pub(super) fn read_head(mut frame: Bytes) -> Result<Head, String> {
    const SHORT: &str = "a request shorter than its header";
    let key = frame.try_get_i16().map_err(|_| SHORT)?;
    let version = frame.try_get_i16().map_err(|_| SHORT)?;
    let correlation = frame.try_get_i32().map_err(|_| SHORT)?;
    if key == ApiVersionsRequest::KEY && !ApiVersionsRequest::VERSIONS.contains(version) {
        // A newer client asks what is spoken here: it is answered in version 0, whatever follows (KIP-511).
        let pending = Pending { key, version: 0, correlation };
        return Ok(Head { pending, client_id: None, body: Bytes::new(), unknown_version: true });
    }
    let header = header_version(key, version)
        .ok_or_else(|| format!("API key {key} version {version} is not served"))?;
    let client_id = match frame.try_get_i16().map_err(|_| SHORT)? {
        -1 => None,
        n => {
            let n = usize::try_from(n).ok().filter(|n| *n <= frame.len()).ok_or(SHORT)?;
            Some(StrBytes::from_utf8(frame.split_to(n)).map_err(|_| "a client id that is no UTF-8")?)
        }
    };
    if header >= 2 {
        let rest = check(&frame, 0, true, &[])?.len();
        frame.advance(frame.len() - rest);
    }
    Ok(Head {
        pending: Pending { key, version, correlation },
        client_id,
        body: frame,
        unknown_version: false,
    })
}

#[cfg(test)]
mod tests;
