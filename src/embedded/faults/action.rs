//! What a rule does when it fires.

use std::fmt;
use std::time::Duration;

use super::names::Kind;
use crate::NodeId;

/// What happens to a request on which a rule fires. Where nothing else is said, the request itself is worked and
/// answered as always.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Kafka: the work is not done, every part of the answer carries this error code.
    Error(i16),
    /// Kafka: the work is done, and its answer says this error code everywhere all the same: as a broker that appended records and
    /// then lost the leadership, a replica or its patience.
    ErrorAfter(i16),
    /// The work is done at once; its answer leaves after so long. Later answers of the connection wait behind it.
    Delay(Duration),
    /// The work is done, then the connection is cut instead of an answer: the client cannot know.
    DropAnswer,
    /// The connection is cut before the work: nothing was done.
    DropRequest,
    /// The work is done; of the answer only so many bytes leave, then the connection is cut.
    CutAnswer(usize),
    /// The work is done; the answer is kept until [`release`](super::Faults::release) is called with this name. Later answers
    /// of the connection wait behind it.
    Hold(String),
    /// The work is done once and the answer is sent twice.
    AnswerTwice,
    /// Nothing more is read from the connection and nothing is sent to it for so long. The request is worked after it.
    Stall(Duration),
    /// The broker that got the request dies before the work: all its connections are cut, none is taken any more.
    Kill,
    /// The broker that got the request dies before the work and takes connections again after so long.
    Restart(Duration),
    /// For so long, nobody reaches the broker that got the request: its connections hang, and Kafka gives its partitions
    /// other leaders. Nothing happens to a RabbitMQ, which has no other node.
    Isolate(Duration),
    /// Kafka: the partitions that the request names get another leader before the work; to this broker, or to the next one.
    MoveLeader(Option<NodeId>),
    /// Kafka: the group or transactional id that the request names gets another coordinator before the work; this broker, or
    /// the next one.
    MoveCoordinator(Option<NodeId>),
    /// Kafka: a Metadata answer tells each leader as it was before the last change: the broker lags behind the others.
    OldLeaders,
    /// Kafka: the session for which the request speaks is over before the work: the member of a group, or the fetch session.
    ExpireSession,
    /// RabbitMQ: the channel is closed by the broker with this code and text, instead of the work.
    CloseChannel(u16, String),
    /// RabbitMQ: the connection is closed by the broker with this code and text, instead of the work.
    CloseConnection(u16, String),
    /// RabbitMQ: `connection.blocked` with this reason, and `connection.unblocked` after so long; publishes of the
    /// connection wait for it.
    Block(String, Duration),
    /// RabbitMQ: all consumers of the queue that the request names, or else of the channel, are cancelled by the broker.
    CancelConsumers,
    /// RabbitMQ: a publish is dropped and, on a channel in confirm mode, answered `basic.nack`.
    Nack,
}

impl Action {
    /// Whether it has a meaning for requests of this kind.
    pub(crate) fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Delay(_)
            | Self::DropAnswer
            | Self::DropRequest
            | Self::CutAnswer(_)
            | Self::Hold(_)
            | Self::AnswerTwice
            | Self::Stall(_)
            | Self::Kill
            | Self::Restart(_)
            | Self::Isolate(_) => true,
            Self::OldLeaders => kind == Kind::Kafka(3),
            Self::Error(_)
            | Self::ErrorAfter(_)
            | Self::MoveLeader(_)
            | Self::MoveCoordinator(_)
            | Self::ExpireSession => matches!(kind, Kind::Kafka(_)),
            Self::CloseChannel(..) | Self::CloseConnection(..) | Self::Block(..) | Self::CancelConsumers => {
                matches!(kind, Kind::Amqp(..))
            }
            Self::Nack => kind == Kind::Amqp(60, 40),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = |node: &Option<NodeId>| {
            node.map_or_else(|| "the next broker".to_owned(), |n| format!("broker {n}"))
        };
        match self {
            Self::Error(code) => write!(f, "answer with error {code}"),
            Self::ErrorAfter(code) => write!(f, "do the work and answer with error {code}"),
            Self::Delay(by) => write!(f, "delay by {by:?}"),
            Self::DropAnswer => write!(f, "do the work and cut the connection"),
            Self::DropRequest => write!(f, "cut the connection before the work"),
            Self::CutAnswer(at) => write!(f, "cut the answer at byte {at}"),
            Self::Hold(name) => write!(f, "hold the answer until {name:?} is released"),
            Self::AnswerTwice => write!(f, "answer twice"),
            Self::Stall(by) => write!(f, "stall the connection for {by:?}"),
            Self::Kill => write!(f, "kill the broker"),
            Self::Restart(after) => write!(f, "restart the broker after {after:?}"),
            Self::Isolate(by) => write!(f, "isolate the broker for {by:?}"),
            Self::MoveLeader(node) => write!(f, "move the leader to {}", to(node)),
            Self::MoveCoordinator(node) => write!(f, "move the coordinator to {}", to(node)),
            Self::OldLeaders => write!(f, "tell the leaders of before"),
            Self::ExpireSession => write!(f, "expire the session"),
            Self::CloseChannel(code, text) => write!(f, "close the channel with {code} {text}"),
            Self::CloseConnection(code, text) => write!(f, "close the connection with {code} {text}"),
            Self::Block(reason, by) => write!(f, "block the connection for {by:?}: {reason}"),
            Self::CancelConsumers => write!(f, "cancel the consumers"),
            Self::Nack => write!(f, "nack the publish"),
        }
    }
}
