//! What administration asks: groups, records, the cluster, transactions, users and rights.
//!
//! Questions about many groups at once have messages of their own beside those about one: they begin with the versions
//! that can name several, so that nobody sends one to a broker that would read the first name alone.

use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest,
    DeleteAclsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClusterRequest, DescribeClusterResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    ListGroupsRequest, ListGroupsResponse, ListTransactionsRequest, ListTransactionsResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::Shape::{Bytes as Raw, Fixed, Struct, Structs, Text, Texts, Values};
use super::*;

/// A question for the coordinators of several groups (KIP-699, Kafka 3.0).
#[derive(Debug, Clone)]
pub(crate) struct FindCoordinators(pub(crate) FindCoordinatorRequest);

fn find_coordinators(request: &FindCoordinators, out: &mut Parts, version: i16) -> Result<(), String> {
    encode(&request.0, out, version)
}
api!(FindCoordinators -> FindCoordinatorResponse: "FindCoordinator" FindCoordinator, 4..=6, flexible 3, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Fixed(4)), always(Text), always(Fixed(4 + 2)), always(Text)])),
], written by find_coordinators);

/// A question for the committed offsets of several groups (KIP-709, Kafka 3.0).
#[derive(Debug, Clone)]
pub(crate) struct FetchOffsets(pub(crate) OffsetFetchRequest);

fn fetch_offsets(request: &FetchOffsets, out: &mut Parts, version: i16) -> Result<(), String> {
    encode(&request.0, out, version)
}
const COMMITTED: &[Field] = &[always(Fixed(4 + 8 + 4)), always(Text), always(Fixed(2))];
api!(FetchOffsets -> OffsetFetchResponse: "OffsetFetch" OffsetFetch, 8..=9, flexible 6, &[
    always(Fixed(4)),
    always(Structs(&[
        always(Text),
        always(Structs(&[always(Text), always(Structs(COMMITTED))])),
        always(Fixed(2)),
    ])),
], written by fetch_offsets);

api!(ListGroupsRequest -> ListGroupsResponse: "ListGroups" ListGroups, 0..=5, flexible 3, &[
    since(1, Fixed(4)),
    always(Fixed(2)),
    always(Structs(&[always(Text), always(Text), since(4, Text), since(5, Text)])),
]);

const CLASSIC_MEMBER: &[Field] =
    &[always(Text), since(4, Text), always(Text), always(Text), always(Raw), always(Raw)];
api!(DescribeGroupsRequest -> DescribeGroupsResponse: "DescribeGroups" DescribeGroups, 0..=6, flexible 5, &[
    since(1, Fixed(4)),
    always(Structs(&[
        always(Fixed(2)),
        since(6, Text),
        always(Text),
        always(Text),
        always(Text),
        always(Text),
        always(Structs(CLASSIC_MEMBER)),
        since(3, Fixed(4)),
    ])),
]);

const ASSIGNED: Shape = Struct(&[always(Structs(&[always(Fixed(16)), always(Text), always(Values(4))]))]);
const CONSUMER_MEMBER: &[Field] = &[
    always(Text),
    always(Text),
    always(Text),
    always(Fixed(4)),
    always(Text),
    always(Text),
    always(Texts),
    always(Text),
    always(ASSIGNED),
    always(ASSIGNED),
    since(1, Fixed(1)),
];
impl Api for ConsumerGroupDescribeRequest {
    type Answer = ConsumerGroupDescribeResponse;
    const NAME: &'static str = "ConsumerGroupDescribe";
    // rskafka has no name for it.
    const API: ApiKey = ApiKey::Unknown(Int16(69));
    const MIN: i16 = 0;
    const MAX: i16 = 1;
    const FLEXIBLE: i16 = 0;
    const ANSWER: &'static [Field] = &[
        always(Fixed(4)),
        always(Structs(&[
            always(Fixed(2)),
            always(Text),
            always(Text),
            always(Text),
            always(Fixed(4 + 4)),
            always(Text),
            always(Structs(CONSUMER_MEMBER)),
            always(Fixed(4)),
        ])),
    ];

    fn write(&self, out: &mut Parts, version: i16) -> Result<(), String> {
        encode(self, out, version)
    }
}

// Its only version has no tagged fields.
api!(OffsetDeleteRequest -> OffsetDeleteResponse: "OffsetDelete" OffsetDelete, 0..=0, flexible 32767, &[
    always(Fixed(2 + 4)),
    always(PARTITION_ERRORS),
]);

api!(DeleteRecordsRequest -> DeleteRecordsResponse: "DeleteRecords" DeleteRecords, 0..=2, flexible 2, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Structs(&[always(Fixed(4 + 8 + 2))]))])),
]);

const BROKER: &[Field] =
    &[always(Fixed(4)), always(Text), always(Fixed(4)), always(Text), since(2, Fixed(1))];
api!(DescribeClusterRequest -> DescribeClusterResponse: "DescribeCluster" DescribeCluster, 0..=2, flexible 0, &[
    always(Fixed(4 + 2)),
    always(Text),
    since(1, Fixed(1)),
    always(Text),
    always(Fixed(4)),
    always(Structs(BROKER)),
    always(Fixed(4)),
]);

api!(ListTransactionsRequest -> ListTransactionsResponse: "ListTransactions" ListTransactions, 0..=2, flexible 0, &[
    always(Fixed(4 + 2)),
    always(Texts),
    always(Structs(&[always(Text), always(Fixed(8)), always(Text)])),
]);

api!(DescribeTransactionsRequest -> DescribeTransactionsResponse:
    "DescribeTransactions" DescribeTransactions, 0..=0, flexible 0, &[
    always(Fixed(4)),
    always(Structs(&[
        always(Fixed(2)),
        always(Text),
        always(Text),
        always(Fixed(4 + 8 + 8 + 2)),
        always(Structs(&[always(Text), always(Values(4))])),
    ])),
]);

const PRODUCERS: &[Field] =
    &[always(Fixed(4 + 2)), always(Text), always(Structs(&[always(Fixed(8 + 4 + 4 + 8 + 4 + 8))]))];
api!(DescribeProducersRequest -> DescribeProducersResponse: "DescribeProducers" DescribeProducers, 0..=0, flexible 0, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Structs(PRODUCERS))])),
]);

api!(WriteTxnMarkersRequest -> WriteTxnMarkersResponse: "WriteTxnMarkers" WriteTxnMarkers, 1..=1, flexible 1, &[
    always(Structs(&[always(Fixed(8)), always(PARTITION_ERRORS)])),
]);

api!(DescribeUserScramCredentialsRequest -> DescribeUserScramCredentialsResponse:
    "DescribeUserScramCredentials" DescribeUserScramCredentials, 0..=0, flexible 0, &[
    always(Fixed(4 + 2)),
    always(Text),
    always(Structs(&[always(Text), always(Fixed(2)), always(Text), always(Structs(&[always(Fixed(1 + 4))]))])),
]);

api!(AlterUserScramCredentialsRequest -> AlterUserScramCredentialsResponse:
    "AlterUserScramCredentials" AlterUserScramCredentials, 0..=0, flexible 0, &[
    always(Fixed(4)),
    always(Structs(&[always(Text), always(Fixed(2)), always(Text)])),
]);

const ENTRY: &[Field] = &[always(Text), always(Text), always(Fixed(1 + 1))];
api!(DescribeAclsRequest -> DescribeAclsResponse: "DescribeAcls" DescribeAcls, 1..=3, flexible 2, &[
    always(Fixed(4 + 2)),
    always(Text),
    always(Structs(&[always(Fixed(1)), always(Text), always(Fixed(1)), always(Structs(ENTRY))])),
]);

api!(CreateAclsRequest -> CreateAclsResponse: "CreateAcls" CreateAcls, 1..=3, flexible 2, &[
    always(Fixed(4)),
    always(Structs(&[always(Fixed(2)), always(Text)])),
]);

const DELETED_ENTRY: &[Field] = &[
    always(Fixed(2)),
    always(Text),
    always(Fixed(1)),
    always(Text),
    always(Fixed(1)),
    always(Text),
    always(Text),
    always(Fixed(1 + 1)),
];
api!(DeleteAclsRequest -> DeleteAclsResponse: "DeleteAcls" DeleteAcls, 1..=3, flexible 2, &[
    always(Fixed(4)),
    always(Structs(&[always(Fixed(2)), always(Text), always(Structs(DELETED_ENTRY))])),
]);

#[cfg(test)]
mod tests;
