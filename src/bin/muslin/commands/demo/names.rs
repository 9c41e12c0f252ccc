//! What the demo makes, and what its messages hold.

use std::fmt;

use muslin::{Result, Topic, events};
use serde::{Deserialize, Serialize};

/// The type of the tasks.
pub(super) const TASK: &str = "payment.settle";

/// The names of one run: all its own, so that several demos and everything else go undisturbed.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) id: String,
    pub(super) event_type: String,
    /// Where the events stand.
    pub(super) events: Topic,
    /// A record for each event that was handled, in the order of its aggregate.
    pub(super) handled: Topic,
    pub(super) dead: Topic,
    pub(super) group: String,
    pub(super) tasks: String,
    /// An entry for each effect.
    pub(super) ledger: String,
}

impl Names {
    pub(super) fn new(id: &str) -> Result<Self> {
        let group = format!("muslin-demo-{id}");
        let event_type = format!("{group}.ordered");
        Ok(Self {
            id: id.to_owned(),
            events: events::topic_of(&event_type)?,
            event_type,
            handled: Topic::new(format!("{group}.handled"))?,
            dead: Topic::new(format!("{group}.dead"))?,
            tasks: format!("{group}.tasks"),
            ledger: format!("{group}.ledger"),
            group,
        })
    }

    pub(super) fn topics(&self) -> [&Topic; 3] {
        [&self.events, &self.handled, &self.dead]
    }

    /// The key of a task in the store.
    pub(super) fn task_key(&self, id: &str) -> String {
        format!("tasks:{}:{id}", self.tasks)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, handled, dead, group, tasks, ledger, .. } = self;
        write!(f, "topics {events}, {handled}, {dead}; group {group}; queues {tasks}, {ledger}")
    }
}

/// The data of an event, and of the task that it becomes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ordered {
    pub(super) aggregate: String,
    /// Which event of its aggregate it is, from 0.
    pub(super) sequence: u64,
    /// Negative for the poisoned one.
    pub(super) amount: i64,
}

/// A record of the handled topic.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handled {
    pub(super) event_id: String,
    pub(super) sequence: u64,
}

/// An entry of the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) task: String,
    /// The name of this attempt's effect.
    pub(super) effect: String,
    pub(super) worker: u16,
}

/// Whether its task is put twice, as by a producer that lost a confirm: one in 199.
pub(super) fn is_put_twice(data: &Ordered) -> bool {
    data.amount % 199 == 7
}
