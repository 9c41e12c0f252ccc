//! The memory alarm: publishers are to wait while the messages take more than the limit.

use super::Broker;
use super::api::Event;

/// What messages take.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes of all messages that stand in queues, ready or not settled.
    pub(super) used: u64,
    pub(super) alarm: bool,
}

impl Broker {
    /// Sets or clears the alarm: set at the limit, cleared below seven eighths of it, so that it does not flap.
    #[inline]
    pub(super) fn check_memory(&mut self) {
        let (limit, used) = (self.settings.memory_limit, self.memory.used);
        let alarm = if self.memory.alarm { used >= limit - limit / 8 } else { used >= limit };
        if alarm != self.memory.alarm {
            self.memory.alarm = alarm;
            self.events.push_back(Event::Memory { alarm });
        }
    }
}
