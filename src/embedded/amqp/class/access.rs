//! Class `access`: tickets of AMQP 0-9. RabbitMQ gives number 1 to everybody and never asks for it.

use super::Cx;
use crate::embedded::amqp::channel::Channel;
use crate::embedded::amqp::wire::method::access;

pub(super) fn request(cx: &mut Cx<'_>, channel: &Channel) {
    cx.link.send(channel.number, &access::RequestOk { ticket: 1 });
}
