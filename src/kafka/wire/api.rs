//! Which versions of which requests are spoken, and how kafka-protocol's messages ride on rskafka's messenger.
//!
//! The upper ends are chosen, not the newest: requests by topic id (Produce 13, Fetch 13), several groups, coordinators
//! or transactions in one request (OffsetFetch 8, FindCoordinator 4, AddPartitionsToTxn 4) and two-phase commit
//! (InitProducerId 6) bring nothing to this client and would double its shapes; [`admin`] asks about many groups by messages
//! of its own. Field tables cite the schemas in Kafka's `clients/src/main/resources/common/message`.
//!
//! With some requests the version itself says something. From Produce 12, EndTxn 5 and TxnOffsetCommit 5 on, a
//! transactional request tells the broker that its sender follows the second part of KIP-890: the partition joins the
//! transaction by the write alone, and the epoch grows at each end. They may only be spoken where the cluster's feature
//! `transaction.version` is 2 or higher; below that, [`Link::call_capped`](super::Link::call_capped) stays under them.

use std::cell::Cell;
use std::io::Cursor;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    EndTxnRequest, EndTxnResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    ProduceResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use rskafka::protocol::api_key::ApiKey;
use rskafka::protocol::api_version::{ApiVersion, ApiVersionRange};
use rskafka::protocol::messages::{
    ReadVersionedError, ReadVersionedType, RequestBody, WriteVersionedError, WriteVersionedType,
};
use rskafka::protocol::primitives::Int16;
use rskafka::protocol::traits::{ReadError, WriteError};

use super::outbox::{Frame, Outbox, Parts, ticket};
use super::produce::Produce;
use super::shape::{Field, Shape, always, check, since};

/// A request that this client speaks.
pub(crate) trait Api: Send + Sync {
    /// Its answer.
    type Answer: Decodable + Send;
    /// Its name, for messages.
    const NAME: &'static str;
    /// Its key as rskafka names it.
    const API: ApiKey;
    /// The lowest version spoken.
    const MIN: i16;
    /// The highest version spoken.
    const MAX: i16;
    /// The first version with compact lengths and tagged fields (KIP-482).
    const FLEXIBLE: i16;
    /// The first version whose answer's header has tagged fields.
    const FLEXIBLE_HEADER: i16 = Self::FLEXIBLE;
    /// The answer's fields.
    const ANSWER: &'static [Field];

    /// Writes the body behind its header.
    ///
    /// # Errors
    /// What cannot be written in this version.
    fn write(&self, out: &mut Parts, version: i16) -> Result<(), String>;
}

/// As kafka-protocol writes it.
fn encode<R: Encodable>(request: &R, out: &mut Parts, version: i16) -> Result<(), String> {
    if let Ok(size) = request.compute_size(version) {
        out.head.reserve(size);
    }
    request.encode(&mut out.head, version).map_err(|e| e.to_string())
}

macro_rules! api {
    ($request:ident -> $response:ident: $name:literal $api:ident, $min:literal..=$max:literal, flexible $flexible:literal, $answer:expr) => {
        api!($request -> $response: $name $api, $min..=$max, flexible $flexible, $answer, written by encode);
    };
    ($request:ident -> $response:ident: $name:literal $api:ident, $min:literal..=$max:literal, flexible $flexible:literal, $answer:expr, written by $write:path) => {
        impl Api for $request {
            type Answer = $response;
            const NAME: &'static str = $name;
            const API: ApiKey = ApiKey::$api;
            const MIN: i16 = $min;
            const MAX: i16 = $max;
            const FLEXIBLE: i16 = $flexible;
            const ANSWER: &'static [Field] = $answer;
            fn write(&self, out: &mut Parts, version: i16) -> Result<(), String> {
                $write(self, out, version)
            }
        }
    };
}

use Shape::{Bytes as Raw, Fixed, Struct, Structs, Tags, Text, Values};

const PRODUCE_PARTITION: &[Field] = &[
    always(Fixed(4 + 2 + 8 + 8)),
    since(5, Fixed(8)),
    since(8, Structs(&[always(Fixed(4)), always(Text)])),
    since(8, Text),
    // The current leader and its epoch, where this broker is not the leader (KIP-951).
    since(10, Tags(&[(0, always(Struct(&[always(Fixed(4 + 4))])))])),
];
// The throttle time stands behind the topics; the tagged field holds the addresses of the leaders named above.
api!(Produce -> ProduceResponse: "Produce" Produce, 3..=12, flexible 9, &[
    always(Structs(&[always(Text), always(Structs(PRODUCE_PARTITION))])),
    always(Fixed(4)),
    since(10, Tags(&[
        (0, always(Structs(&[always(Fixed(4)), always(Text), always(Fixed(4)), always(Text)]))),
    ])),
], written by Produce::write);

const FETCH_PARTITION: &[Field] = &[
    always(Fixed(4 + 2 + 8 + 8)),
    since(5, Fixed(8)),
    always(Structs(&[always(Fixed(8 + 8))])),
    since(11, Fixed(4)),
    always(Raw),
    // Where the log parted from what was fetched before, the leader, and a snapshot (KIP-595).
    since(
        12,
        Tags(&[
            (0, always(Struct(&[always(Fixed(4 + 8))]))),
            (1, always(Struct(&[always(Fixed(4 + 4))]))),
            (2, always(Struct(&[always(Fixed(8 + 4))]))),
        ]),
    ),
];
api!(FetchRequest -> FetchResponse: "Fetch" Fetch, 4..=12, flexible 12, &[
    always(Fixed(4)),
    since(7, Fixed(2 + 4)),
    always(Structs(&[always(Text), always(Structs(FETCH_PARTITION))])),
]);

api!(ListOffsetsRequest -> ListOffsetsResponse: "ListOffsets" ListOffsets, 1..=7, flexible 6, &[
    since(2, Fixed(4)),
    always(Structs(&[
        always(Text),
        always(Structs(&[always(Fixed(4 + 2 + 8 + 8)), since(4, Fixed(4))])),
    ])),
]);

const METADATA_PARTITION: &[Field] = &[
    always(Fixed(2 + 4 + 4)),
    since(7, Fixed(4)),
    always(Values(4)),
    always(Values(4)),
    since(5, Values(4)),
];
api!(MetadataRequest -> MetadataResponse: "Metadata" Metadata, 4..=12, flexible 9, &[
    always(Fixed(4)),
    always(Structs(&[always(Fixed(4)), always(Text), always(Fixed(4)), always(Text)])),
    always(Text),
    always(Fixed(4)),
    always(Structs(&[
        always(Fixed(2)),
        always(Text),
        since(10, Fixed(16)),
        always(Fixed(1)),
        always(Structs(METADATA_PARTITION)),
        since(8, Fixed(4)),
    ])),
    Field { from: 8, to: 10, shape: Fixed(4) },
]);

api!(InitProducerIdRequest -> InitProducerIdResponse: "InitProducerId" InitProducerId, 0..=5, flexible 2, &[
    always(Fixed(4 + 2 + 8 + 2)),
]);

// Errors by partition: of topics that join a transaction, of offsets that are committed in one.
const PARTITION_ERRORS: Shape = Structs(&[always(Text), always(Structs(&[always(Fixed(4 + 2))]))]);
api!(AddPartitionsToTxnRequest -> AddPartitionsToTxnResponse: "AddPartitionsToTxn" AddPartitionsToTxn, 0..=3, flexible 3, &[
    always(Fixed(4)),
    always(PARTITION_ERRORS),
]);

api!(AddOffsetsToTxnRequest -> AddOffsetsToTxnResponse: "AddOffsetsToTxn" AddOffsetsToTxn, 0..=4, flexible 3, &[
    always(Fixed(4 + 2)),
]);

api!(TxnOffsetCommitRequest -> TxnOffsetCommitResponse: "TxnOffsetCommit" TxnOffsetCommit, 0..=5, flexible 3, &[
    always(Fixed(4)),
    always(PARTITION_ERRORS),
]);

// The producer id and epoch to go on with.
api!(EndTxnRequest -> EndTxnResponse: "EndTxn" EndTxn, 0..=5, flexible 3, &[
    always(Fixed(4 + 2)),
    since(5, Fixed(8 + 2)),
]);

api!(FindCoordinatorRequest -> FindCoordinatorResponse: "FindCoordinator" FindCoordinator, 0..=3, flexible 3, &[
    since(1, Fixed(4)),
    always(Fixed(2)),
    since(1, Text),
    always(Fixed(4)),
    always(Text),
    always(Fixed(4)),
]);

api!(OffsetFetchRequest -> OffsetFetchResponse: "OffsetFetch" OffsetFetch, 1..=7, flexible 6, &[
    since(3, Fixed(4)),
    always(Structs(&[
        always(Text),
        always(Structs(&[always(Fixed(4 + 8)), since(5, Fixed(4)), always(Text), always(Fixed(2))])),
    ])),
    since(2, Fixed(2)),
]);

// From version 9 on a member of a group of the newer protocol may commit (KIP-848); the layout is that of 8.
api!(OffsetCommitRequest -> OffsetCommitResponse: "OffsetCommit" OffsetCommit, 2..=9, flexible 8, &[
    since(3, Fixed(4)),
    always(Structs(&[always(Text), always(Structs(&[always(Fixed(4 + 2))]))])),
]);

const CREATED_CONFIG: &[Field] = &[always(Text), always(Text), always(Fixed(1 + 1 + 1))];
api!(CreateTopicsRequest -> CreateTopicsResponse: "CreateTopics" CreateTopics, 2..=7, flexible 5, &[
    always(Fixed(4)),
    always(Structs(&[
        always(Text),
        since(7, Fixed(16)),
        always(Fixed(2)),
        always(Text),
        since(5, Fixed(4 + 2)),
        since(5, Structs(CREATED_CONFIG)),
        since(5, Tags(&[(0, always(Fixed(2)))])),
    ])),
]);

// From version 6 on a request names topics in another field, by id.
api!(DeleteTopicsRequest -> DeleteTopicsResponse: "DeleteTopics" DeleteTopics, 1..=5, flexible 4, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Fixed(2)), since(5, Text)])),
]);

api!(CreatePartitionsRequest -> CreatePartitionsResponse: "CreatePartitions" CreatePartitions, 0..=3, flexible 2, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Fixed(2)), always(Text)])),
]);

const CONFIG: &[Field] = &[
    always(Text),
    always(Text),
    always(Fixed(1 + 1 + 1)),
    always(Structs(&[always(Text), always(Text), always(Fixed(1))])),
    since(3, Fixed(1)),
    since(3, Text),
];
api!(DescribeConfigsRequest -> DescribeConfigsResponse: "DescribeConfigs" DescribeConfigs, 1..=4, flexible 4, &[
    always(Fixed(4)),
    always(Structs(&[always(Fixed(2)), always(Text), always(Fixed(1)), always(Text), always(Structs(CONFIG))])),
]);

api!(IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse:
    "IncrementalAlterConfigs" IncrementalAlterConfigs, 0..=1, flexible 1, &[
    always(Fixed(4)),
    always(Structs(&[always(Fixed(2)), always(Text), always(Fixed(1)), always(Text)])),
]);

api!(DeleteGroupsRequest -> DeleteGroupsResponse: "DeleteGroups" DeleteGroups, 0..=2, flexible 2, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Fixed(2))])),
]);

const FEATURES: Shape = Structs(&[always(Text), always(Fixed(2 + 2))]);
impl Api for ApiVersionsRequest {
    type Answer = ApiVersionsResponse;
    const NAME: &'static str = "ApiVersions";
    const API: ApiKey = ApiKey::ApiVersions;
    const MIN: i16 = 0;
    const MAX: i16 = 3;
    const FLEXIBLE: i16 = 3;
    // The answer's header stays at version 0, so that a client can read a refusal of its version (KIP-511).
    const FLEXIBLE_HEADER: i16 = i16::MAX;
    const ANSWER: &'static [Field] = &[
        always(Fixed(2)),
        always(Structs(&[always(Fixed(2 + 2 + 2))])),
        since(1, Fixed(4)),
        since(
            3,
            Tags(&[
                (0, always(FEATURES)),
                (1, always(Fixed(8))),
                (2, always(FEATURES)),
                (3, always(Fixed(1))),
            ]),
        ),
    ];

    fn write(&self, out: &mut Parts, version: i16) -> Result<(), String> {
        encode(self, out, version)
    }
}

const fn version(v: i16) -> ApiVersion {
    ApiVersion(Int16(v))
}

/// A version range as rskafka holds it.
pub(crate) const fn range(min: i16, max: i16) -> ApiVersionRange {
    ApiVersionRange::new(version(min), version(max))
}

/// A request on rskafka's messenger, which speaks the highest version that is in this range and in the broker's:
/// in a version of at most `CAP`.
pub(crate) struct Call<'a, R, const CAP: i16 = { i16::MAX }> {
    request: R,
    outbox: &'a Outbox,
    /// The number of its frame in the outbox, 0 for none.
    posted: Cell<u64>,
}

impl<'a, R, const CAP: i16> Call<'a, R, CAP> {
    pub(crate) fn new(request: R, outbox: &'a Outbox) -> Self {
        Self { request, outbox, posted: Cell::new(0) }
    }
}

impl<R, const CAP: i16> Drop for Call<'_, R, CAP> {
    fn drop(&mut self) {
        // Given up before its turn, if the frame is still there.
        if self.posted.get() != 0 {
            self.outbox.take(self.posted.get());
        }
    }
}

impl<R: Api, const CAP: i16> RequestBody for Call<'_, R, CAP> {
    type ResponseBody = Answer<R>;
    const API_KEY: ApiKey = R::API;
    const API_VERSION_RANGE: ApiVersionRange = range(R::MIN, if CAP < R::MAX { CAP } else { R::MAX });
    const FIRST_TAGGED_FIELD_IN_REQUEST_VERSION: ApiVersion = version(R::FLEXIBLE);
    const FIRST_TAGGED_FIELD_IN_RESPONSE_VERSION: ApiVersion = version(R::FLEXIBLE_HEADER);
}

impl<R: Api, const CAP: i16> WriteVersionedType<Vec<u8>> for Call<'_, R, CAP> {
    fn write_versioned(&self, out: &mut Vec<u8>, version: ApiVersion) -> Result<(), WriteVersionedError> {
        let malformed = |why: String| WriteVersionedError::WriteError(WriteError::Malformed(why.into()));
        // The header stands there already.
        let mut parts = Parts::new(std::mem::take(out));
        self.request.write(&mut parts, version.0.0).map_err(malformed)?;
        if !parts.has_pieces() {
            *out = parts.head;
            return Ok(());
        }
        let frame = Frame::new(parts)
            .map_err(|size| malformed(format!("a request of {size} bytes; 2,147,483,647 are possible")))?;
        self.posted.set(self.outbox.post(frame));
        *out = ticket(self.posted.get());
        Ok(())
    }
}

/// A request's answer.
pub(crate) struct Answer<R: Api>(pub(crate) R::Answer);

impl<R: Api> ReadVersionedType<Cursor<Vec<u8>>> for Answer<R> {
    fn read_versioned(reader: &mut Cursor<Vec<u8>>, version: ApiVersion) -> Result<Self, ReadVersionedError> {
        // The whole frame becomes one `Bytes`, of which record bytes are slices. The cursor is left empty, which its
        // owner reads as "all consumed"; that all was consumed is checked here.
        let at = usize::try_from(reader.position()).unwrap_or(usize::MAX);
        let mut frame = Bytes::from(std::mem::take(reader.get_mut()));
        reader.set_position(0);
        frame.advance(at.min(frame.len()));
        decode::<R>(frame, version.0.0).map(Self).map_err(|why| {
            ReadVersionedError::ReadError(ReadError::Malformed(
                format!("{} answer, version {}: {why}", R::NAME, version.0.0).into(),
            ))
        })
    }
}

/// Decodes the body of an answer: first its lengths are checked, then it is read.
pub(crate) fn decode<R: Api>(mut body: Bytes, version: i16) -> Result<R::Answer, String> {
    let rest = check(&body, version, version >= R::FLEXIBLE, R::ANSWER)?;
    if !rest.is_empty() {
        return Err(format!("{} bytes too many", rest.len()));
    }
    let answer = R::Answer::decode(&mut body, version).map_err(|e| e.to_string())?;
    if body.is_empty() { Ok(answer) } else { Err(format!("{} bytes were not read", body.len())) }
}

pub(crate) mod admin;
mod groups;
#[cfg(test)]
mod tests;
