//! What there is, for those who look from outside of any connection.

use super::Broker;
use super::api::VhostKey;
use super::refusal::Refusal;

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) ready: u64,
    pub(crate) unsettled: u64,
    pub(crate) consumers: u64,
}

impl Broker {
    /// A virtual host by its name, without asking who may open it.
    ///
    /// # Errors
    /// 530 NOT_ALLOWED where it does not exist.
    pub(crate) fn find_vhost(&self, name: &[u8]) -> Result<VhostKey, Refusal> {
        let missing =
            || Refusal::not_allowed(format_args!("vhost {} not found", String::from_utf8_lossy(name)));
        self.vhost_names.get(name).copied().ok_or_else(missing)
    }

    /// What one queue holds.
    pub(crate) fn queue_depth(&self, vhost: VhostKey, name: &[u8]) -> Option<Depth> {
        let key = self.vhosts.get(vhost)?.queues.get(name)?;
        let queue = self.queues.get(*key)?;
        Some(Depth {
            ready: queue.ready.len() as u64,
            unsettled: queue.outstanding.len() as u64,
            consumers: queue.consumers.len() as u64,
        })
    }
}
