//! Class `channel` (AMQP 0-9-1 section 1.5).
//!
//! | method | here |
//! |---|---|
//! | open, close | as specified; the number is free at once after a close |
//! | flow | `active=true` is answered; `active=false` is refused (540), as RabbitMQ does |

use super::{Cx, Failure};
use crate::embedded::amqp::broker::Refusal;
use crate::embedded::amqp::channel::Channel;
use crate::embedded::amqp::wire::Long;
use crate::embedded::amqp::wire::method::channel::{CloseOk, Flow, FlowOk, OpenOk};

pub(super) fn open(cx: &mut Cx<'_>, channel: &Channel, fresh: bool) -> Result<(), Failure> {
    if !fresh {
        return Err(Failure::new(504, "CHANNEL_ERROR - second 'channel.open' seen".to_owned()));
    }
    cx.link.send(channel.number, &OpenOk { reserved: Long(b"") });
    Ok(())
}

pub(super) fn flow(cx: &mut Cx<'_>, channel: &Channel, flow: Flow) -> Result<(), Failure> {
    if !flow.active.has(1) {
        return Err(Refusal::not_implemented("active=false").into());
    }
    cx.link.send(channel.number, &FlowOk { active: flow.active });
    Ok(())
}

pub(super) fn close(cx: &mut Cx<'_>, channel: &mut Channel) {
    drop_quietly(cx, channel);
    cx.link.send(channel.number, &CloseOk {});
}

/// The channel ends with its connection.
pub(super) fn drop_quietly(cx: &mut Cx<'_>, channel: &mut Channel) {
    channel.flush_confirms(cx.link);
    cx.core.unfinished = cx.core.unfinished.saturating_sub(channel.unfinished());
    channel.release(&mut cx.core.broker, cx.now);
}
