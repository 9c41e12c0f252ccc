//! The methods of AMQP 0-9-1 (section 1.4 and on) and RabbitMQ's additions, those of both sides, as plain structs that
//! borrow their texts. [`Request::decode`] reads what a client sends; [`frame`] writes what the server answers.
//!
//! A method's bits stand in [`Flags`], each named by a constant of its struct. A field named `ticket` is the access
//! ticket of older versions, which nobody looks at.

use bytes::{BufMut, BytesMut};

use super::field::{Broken, Field, Flags, Long, RawTable, Reader, Short};
use super::frame::{self, METHOD};

/// One method.
pub(crate) trait Method<'a>: Sized {
    /// Class and method.
    const ID: (u16, u16);
    /// Reads the arguments.
    fn read(from: &mut Reader<'a>) -> Result<Self, Broken>;
    /// Appends the arguments.
    fn write(&self, to: &mut BytesMut);
}

/// Appends the frame of a method.
#[inline]
pub(crate) fn frame<'a, M: Method<'a>>(to: &mut BytesMut, channel: u16, method: &M) {
    frame::write(to, METHOD, channel, |to| {
        to.put_u16(M::ID.0);
        to.put_u16(M::ID.1);
        method.write(to);
    });
}

macro_rules! classes {
    ($($class:ident = $class_id:literal {
        $($name:ident $(<$life:lifetime>)? = $id:literal {
            $($field:ident: $type:ty),* $(,)?
        } $([$($flag:ident = $bit:literal),*])?)*
    })*) => {$(
        pub(crate) mod $class {
            use super::*;

            $(
                #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
                pub(crate) struct $name $(<$life>)? {
                    $(pub(crate) $field: $type,)*
                }

                $(impl $name<'_> {
                    $(pub(crate) const $flag: u8 = $bit;)*
                })?

                impl<'a> Method<'a> for $name $(<$life>)? {
                    const ID: (u16, u16) = ($class_id, $id);

                    #[inline]
                    #[allow(unused_variables, reason = "some methods have no arguments")]
                    fn read(from: &mut Reader<'a>) -> Result<Self, Broken> {
                        Ok(Self { $($field: Field::read(from)?,)* })
                    }

                    #[inline]
                    #[allow(unused_variables, reason = "some methods have no arguments")]
                    fn write(&self, to: &mut BytesMut) {
                        $(self.$field.write(to);)*
                    }
                }
            )*
        }
    )*};
}

classes! {
    connection = 10 {
        Start<'a> = 10 {
            major: u8, minor: u8, server_properties: RawTable<'a>, mechanisms: Long<'a>, locales: Long<'a>,
        }
        StartOk<'a> = 11 {
            client_properties: RawTable<'a>, mechanism: Short<'a>, response: Long<'a>, locale: Short<'a>,
        }
        SecureOk<'a> = 21 { response: Long<'a> }
        Tune = 30 { channel_max: u16, frame_max: u32, heartbeat: u16 }
        TuneOk = 31 { channel_max: u16, frame_max: u32, heartbeat: u16 }
        Open<'a> = 40 { virtual_host: Short<'a>, reserved_1: Short<'a>, reserved_2: Flags }
        OpenOk<'a> = 41 { reserved: Short<'a> }
        Close<'a> = 50 { code: u16, text: Short<'a>, class: u16, method: u16 }
        CloseOk = 51 {}
        Blocked<'a> = 60 { reason: Short<'a> }
        Unblocked = 61 {}
        UpdateSecret<'a> = 70 { secret: Long<'a>, reason: Short<'a> }
        UpdateSecretOk = 71 {}
    }
    channel = 20 {
        Open<'a> = 10 { reserved: Short<'a> }
        OpenOk<'a> = 11 { reserved: Long<'a> }
        Flow = 20 { active: Flags }
        FlowOk = 21 { active: Flags }
        Close<'a> = 40 { code: u16, text: Short<'a>, class: u16, method: u16 }
        CloseOk = 41 {}
    }
    access = 30 {
        Request<'a> = 10 { realm: Short<'a>, flags: Flags }
        RequestOk = 11 { ticket: u16 }
    }
    exchange = 40 {
        Declare<'a> = 10 {
            ticket: u16, exchange: Short<'a>, kind: Short<'a>, flags: Flags, arguments: RawTable<'a>,
        } [PASSIVE = 1, DURABLE = 2, AUTO_DELETE = 4, INTERNAL = 8, NO_WAIT = 16]
        DeclareOk = 11 {}
        Delete<'a> = 20 { ticket: u16, exchange: Short<'a>, flags: Flags }
            [IF_UNUSED = 1, NO_WAIT = 2]
        DeleteOk = 21 {}
        Bind<'a> = 30 {
            ticket: u16, destination: Short<'a>, source: Short<'a>, routing_key: Short<'a>, flags: Flags,
            arguments: RawTable<'a>,
        } [NO_WAIT = 1]
        BindOk = 31 {}
        Unbind<'a> = 40 {
            ticket: u16, destination: Short<'a>, source: Short<'a>, routing_key: Short<'a>, flags: Flags,
            arguments: RawTable<'a>,
        } [NO_WAIT = 1]
        UnbindOk = 51 {}
    }
    queue = 50 {
        Declare<'a> = 10 {
            ticket: u16, queue: Short<'a>, flags: Flags, arguments: RawTable<'a>,
        } [PASSIVE = 1, DURABLE = 2, EXCLUSIVE = 4, AUTO_DELETE = 8, NO_WAIT = 16]
        DeclareOk<'a> = 11 { queue: Short<'a>, messages: u32, consumers: u32 }
        Bind<'a> = 20 {
            ticket: u16, queue: Short<'a>, exchange: Short<'a>, routing_key: Short<'a>, flags: Flags,
            arguments: RawTable<'a>,
        } [NO_WAIT = 1]
        BindOk = 21 {}
        Purge<'a> = 30 { ticket: u16, queue: Short<'a>, flags: Flags } [NO_WAIT = 1]
        PurgeOk = 31 { messages: u32 }
        Delete<'a> = 40 { ticket: u16, queue: Short<'a>, flags: Flags }
            [IF_UNUSED = 1, IF_EMPTY = 2, NO_WAIT = 4]
        DeleteOk = 41 { messages: u32 }
        Unbind<'a> = 50 {
            ticket: u16, queue: Short<'a>, exchange: Short<'a>, routing_key: Short<'a>, arguments: RawTable<'a>,
        }
        UnbindOk = 51 {}
    }
    basic = 60 {
        Qos = 10 { prefetch_size: u32, prefetch_count: u16, global: Flags }
        QosOk = 11 {}
        Consume<'a> = 20 {
            ticket: u16, queue: Short<'a>, tag: Short<'a>, flags: Flags, arguments: RawTable<'a>,
        } // Bit 0 is `no_local`, which RabbitMQ does not look at.
            [NO_ACK = 2, EXCLUSIVE = 4, NO_WAIT = 8]
        ConsumeOk<'a> = 21 { tag: Short<'a> }
        Cancel<'a> = 30 { tag: Short<'a>, flags: Flags } [NO_WAIT = 1]
        CancelOk<'a> = 31 { tag: Short<'a> }
        Publish<'a> = 40 {
            ticket: u16, exchange: Short<'a>, routing_key: Short<'a>, flags: Flags,
        } [MANDATORY = 1, IMMEDIATE = 2]
        Return<'a> = 50 {
            code: u16, text: Short<'a>, exchange: Short<'a>, routing_key: Short<'a>,
        }
        Deliver<'a> = 60 {
            tag: Short<'a>, delivery: u64, redelivered: Flags, exchange: Short<'a>, routing_key: Short<'a>,
        }
        Get<'a> = 70 { ticket: u16, queue: Short<'a>, flags: Flags } [NO_ACK = 1]
        GetOk<'a> = 71 {
            delivery: u64, redelivered: Flags, exchange: Short<'a>, routing_key: Short<'a>, messages: u32,
        }
        GetEmpty<'a> = 72 { reserved: Short<'a> }
        Ack = 80 { delivery: u64, multiple: Flags }
        Reject = 90 { delivery: u64, requeue: Flags }
        RecoverAsync = 100 { requeue: Flags }
        Recover = 110 { requeue: Flags }
        RecoverOk = 111 {}
        // Bit 0: multiple; bit 1: requeue.
        Nack = 120 { delivery: u64, flags: Flags }
    }
    confirm = 85 {
        Select = 10 { no_wait: Flags }
        SelectOk = 11 {}
    }
    tx = 90 {
        Select = 10 {}
        SelectOk = 11 {}
        Commit = 20 {}
        CommitOk = 21 {}
        Rollback = 30 {}
        RollbackOk = 31 {}
    }
}

/// Why a method frame could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Too short to name a method.
    Cut,
    /// No client sends such a method.
    Unknown,
    /// The arguments of this method are not what they should be.
    Arguments((u16, u16)),
}

macro_rules! requests {
    ($($variant:ident($($path:ident)::+ $(<$life:lifetime>)?),)*) => {
        /// A method that a client may send.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Request<'a> {
            $($variant($($path)::+ $(<$life>)?),)*
        }

        impl<'a> Request<'a> {
            /// Reads a method frame's payload. Bytes behind the arguments are an error.
            #[inline]
            pub(crate) fn decode(mut from: Reader<'a>) -> Result<Self, Unreadable> {
                let class = from.u16().map_err(|Broken| Unreadable::Cut)?;
                let method = from.u16().map_err(|Broken| Unreadable::Cut)?;
                let id = (class, method);
                let request = $(
                    if id == <$($path)::+ $(::<$life>)? as Method<'a>>::ID {
                        <$($path)::+ $(::<$life>)? as Method<'a>>::read(&mut from).map(Self::$variant)
                    } else
                )* { return Err(Unreadable::Unknown) };
                match request {
                    Ok(request) if from.is_empty() => Ok(request),
                    Ok(_) | Err(Broken) => Err(Unreadable::Arguments(id)),
                }
            }

            /// Class and method.
            pub(crate) const fn id(&self) -> (u16, u16) {
                match self {
                    $(Self::$variant(_) => <$($path)::+ $(::<$life>)? as Method<'a>>::ID,)*
                }
            }

            /// Appends the method's frame, as a client would send it.
            #[cfg(any(test, fuzzing))]
            pub(crate) fn encode(&self, to: &mut BytesMut, channel: u16) {
                match self {
                    $(Self::$variant(method) => super::method::frame(to, channel, method),)*
                }
            }
        }
    };
}

// The ones that come once per message stand first.
requests! {
    BasicPublish(basic::Publish<'a>),
    BasicAck(basic::Ack),
    BasicNack(basic::Nack),
    BasicReject(basic::Reject),
    BasicGet(basic::Get<'a>),
    ConnectionStartOk(connection::StartOk<'a>),
    ConnectionSecureOk(connection::SecureOk<'a>),
    ConnectionTuneOk(connection::TuneOk),
    ConnectionOpen(connection::Open<'a>),
    ConnectionClose(connection::Close<'a>),
    ConnectionCloseOk(connection::CloseOk),
    ConnectionUpdateSecret(connection::UpdateSecret<'a>),
    ChannelOpen(channel::Open<'a>),
    ChannelFlow(channel::Flow),
    ChannelFlowOk(channel::FlowOk),
    ChannelClose(channel::Close<'a>),
    ChannelCloseOk(channel::CloseOk),
    AccessTicket(access::Request<'a>),
    ExchangeDeclare(exchange::Declare<'a>),
    ExchangeDelete(exchange::Delete<'a>),
    ExchangeBind(exchange::Bind<'a>),
    ExchangeUnbind(exchange::Unbind<'a>),
    QueueDeclare(queue::Declare<'a>),
    QueueBind(queue::Bind<'a>),
    QueuePurge(queue::Purge<'a>),
    QueueDelete(queue::Delete<'a>),
    QueueUnbind(queue::Unbind<'a>),
    BasicQos(basic::Qos),
    BasicConsume(basic::Consume<'a>),
    BasicCancel(basic::Cancel<'a>),
    BasicCancelOk(basic::CancelOk<'a>),
    BasicRecoverAsync(basic::RecoverAsync),
    BasicRecover(basic::Recover),
    ConfirmSelect(confirm::Select),
    TxSelect(tx::Select),
    TxCommit(tx::Commit),
    TxRollback(tx::Rollback),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Head, payload};
    use super::*;

    fn round_trip(request: Request<'_>, channel: u16) {
        let mut out = BytesMut::new();
        request.encode(&mut out, channel);
        let head = Head::peek(&out).unwrap();
        assert_eq!((head.kind, head.channel, head.len()), (METHOD, channel, out.len()));
        let (from, _) = payload(&out, head).unwrap();
        assert_eq!(Request::decode(from), Ok(request));
        let longer = [from.0, &[0]].concat();
        assert_eq!(Request::decode(Reader(&longer)), Err(Unreadable::Arguments(request.id())));
        for cut in 4..from.0.len() {
            assert_eq!(Request::decode(Reader(&from.0[..cut])), Err(Unreadable::Arguments(request.id())));
        }
    }

    proptest! {
        #[test]
        fn methods_survive_the_way_there_and_back(
            a in proptest::collection::vec(any::<u8>(), 0..30),
            b in proptest::collection::vec(any::<u8>(), 0..256),
            n in any::<u64>(),
            bits in any::<u8>(),
            channel in any::<u16>(),
        ) {
            let (x, y, flags, table) = (Short(&a), Short(&b), Flags(bits), RawTable(&b));
            let small = n as u16;
            let wide = n as u32;
            for request in [
                Request::BasicPublish(basic::Publish { ticket: small, exchange: x, routing_key: y, flags }),
                Request::BasicAck(basic::Ack { delivery: n, multiple: flags }),
                Request::BasicNack(basic::Nack { delivery: n, flags }),
                Request::BasicConsume(basic::Consume { ticket: 0, queue: x, tag: y, flags, arguments: table }),
                Request::BasicQos(basic::Qos { prefetch_size: wide, prefetch_count: small, global: flags }),
                Request::QueueDeclare(queue::Declare { ticket: small, queue: y, flags, arguments: table }),
                Request::QueueUnbind(queue::Unbind {
                    ticket: small, queue: x, exchange: y, routing_key: x, arguments: table,
                }),
                Request::ExchangeBind(exchange::Bind {
                    ticket: 0, destination: x, source: y, routing_key: x, flags, arguments: table,
                }),
                Request::ConnectionStartOk(connection::StartOk {
                    client_properties: table, mechanism: x, response: Long(&b), locale: x,
                }),
                Request::ConnectionTuneOk(connection::TuneOk {
                    channel_max: small, frame_max: wide, heartbeat: small,
                }),
                Request::ChannelClose(channel::Close { code: small, text: y, class: small, method: small }),
                Request::TxCommit(tx::Commit {}),
            ] {
                round_trip(request, channel);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            class in prop::sample::select(vec![10u16, 20, 30, 40, 50, 60, 85, 90, 7]),
            method in 0u16..130,
            rest in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = class.to_be_bytes().to_vec();
            bytes.extend(method.to_be_bytes());
            bytes.extend(rest);
            let _ = Request::decode(Reader(&bytes));
        }
    }

    #[test]
    fn what_no_client_sends_is_told_apart_from_broken_arguments() {
        let decode = |bytes: &'static [u8]| Request::decode(Reader(bytes));
        assert_eq!(decode(&[0, 60]), Err(Unreadable::Cut));
        assert_eq!(decode(&[0, 60, 0, 60]), Err(Unreadable::Unknown));
        assert_eq!(decode(&[0, 99, 0, 10]), Err(Unreadable::Unknown));
        assert_eq!(decode(&[0, 60, 0, 80, 1]), Err(Unreadable::Arguments((60, 80))));
    }
}
