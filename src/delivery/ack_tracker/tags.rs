//! AMQP: from the tracker to `basic.ack` frames.

use super::{AckTracker, Assignment, Limits, Position, State};
use crate::DeliveryTag;

/// A `basic.ack` that is due: see [`AckTracker::poll_ack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The `delivery-tag`. It is always one that the broker still holds, as RabbitMQ closes the channel otherwise.
    pub tag: DeliveryTag,
    /// The `multiple` bit: every delivery up to the tag.
    pub multiple: bool,
}

impl AckTracker<DeliveryTag> {
    /// A tracker for an AMQP channel. Its first delivery has tag 1; all consumers of the channel share it.
    #[must_use]
    pub fn for_tags(assignment: Assignment, limits: Limits) -> Self {
        Self::new(assignment, DeliveryTag(1), limits, true)
    }

    /// The next `basic.ack` to send: one with `multiple` for all that left the ring since the last poll, then one
    /// for each that is settled behind an unsettled one. Poll until `None`; seldom polls mean fewer frames.
    ///
    /// `multiple` covers only what is settled, and names a tag that was neither acknowledged alone nor discarded
    /// (AMQP 0-9-1, 1.8.3.13: an unknown tag closes the channel).
    pub fn poll_ack(&mut self) -> Option<Ack> {
        if let Some((rank, count)) = self.passed.take() {
            return Some(Ack { tag: DeliveryTag::from_rank(rank), multiple: count > 1 });
        }
        while let Some(number) = self.alone.as_mut()?.pop_front() {
            let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
            if let Some(slot) = index.and_then(|index| self.slots.get_mut(index))
                && slot.state == State::Settled
            {
                slot.state = State::Told;
                return Some(Ack { tag: DeliveryTag::from_rank(slot.rank), multiple: false });
            }
        }
        None
    }

    /// Ends the channel or its connection: every receipt is stale, no ack is due, and the broker delivers what is unsettled
    /// or unpolled again. Poll and send the acks first where the channel still stands.
    pub fn revoke(&mut self) {
        self.clear();
    }
}
