//! Where a binding leads.

use super::api::{ExchangeKey, QueueKey};

/// The far end of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target {
    Queue(QueueKey),
    Exchange(ExchangeKey),
}

/// Targets that share a routing key; each stands here once, however many bindings with different arguments lead to it.
#[derive(Debug, Default)]
pub(super) struct Targets(Vec<(Target, u32)>);

impl Targets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Target> {
        self.0.iter().map(|(target, _)| *target)
    }

    /// One more binding leads to it.
    pub(super) fn add(&mut self, target: Target) {
        match self.0.iter_mut().find(|(t, _)| *t == target) {
            Some((_, bindings)) => *bindings += 1,
            None => self.0.push((target, 1)),
        }
    }

    /// One binding less.
    pub(super) fn remove(&mut self, target: Target) {
        let Some(at) = self.0.iter().position(|(t, _)| *t == target) else { return };
        if let Some((_, bindings)) = self.0.get_mut(at) {
            *bindings -= 1;
            if *bindings == 0 {
                self.0.remove(at);
            }
        }
    }
}
