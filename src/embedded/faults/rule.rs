//! Which requests a rule is about, and on which of them it fires.

use std::time::Duration;

use super::action::Action;
use super::names::{Kind, suggestions};
use crate::{Error, ErrorKind, NodeId, Result};

/// On which of the requests that it fits a rule fires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum When {
    All,
    Nth(u64),
    Every(u64),
    First(u64),
    Chance(f64),
}

/// A fault on demand: which requests, which of them, and what happens.
///
/// ```
/// use muslin::embedded::faults::{Action, Rule};
/// # fn main() -> muslin::Result<()> {
/// // The third produce request to topic `orders` is worked, and the connection cut instead of an answer.
/// let lost_answer = Rule::new("Produce", Action::DropAnswer)?.topic("orders").nth(3);
/// // One in ten of the publishes to queue `tasks` is refused.
/// let refused = Rule::new("basic.publish", Action::Nack)?.queue("tasks").chance(0.1)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Rule {
    pub(crate) name: Option<String>,
    /// Empty: all.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) client: Option<Pattern>,
    pub(crate) node: Option<NodeId>,
    pub(crate) place: Option<Pattern>,
    pub(crate) when: When,
    pub(crate) after: Duration,
    pub(crate) until: Option<Duration>,
    pub(crate) action: Action,
}

impl Rule {
    /// A rule for these requests: names of Kafka's APIs (`Produce`) or AMQP's methods (`basic.publish`), several with
    /// commas between them, or `*` for every request. It fires on all of them until told otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that is not known, and for an action without a meaning for such a request.
    pub fn new(requests: &str, action: Action) -> Result<Self> {
        let mut kinds = Vec::new();
        if requests.trim() != "*" {
            for name in requests.split(',').map(str::trim) {
                let Some(kind) = Kind::by_name(name) else {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!(
                            "request {name:?} is not known{}; expected a Kafka API (Produce, Fetch, ...), an AMQP \
                             method (basic.publish, ...) or *",
                            suggestions(name)
                        ),
                    ));
                };
                if !action.fits(kind) {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("the action \"{action}\" has no meaning for {}", kind.name()),
                    ));
                }
                kinds.push(kind);
            }
        }
        Ok(Self {
            name: None,
            kinds,
            client: None,
            node: None,
            place: None,
            when: When::All,
            after: Duration::ZERO,
            until: None,
            action,
        })
    }

    /// A name, for the record of what happened and for [`remove`](super::Faults::remove).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only requests of this client: Kafka's client id, or the connection name of an AMQP client. A `*` at the end stands for
    /// any rest.
    pub fn client(mut self, id: impl Into<String>) -> Self {
        self.client = Some(Pattern::new(id.into()));
        self
    }

    /// Only requests that reach this broker.
    pub fn broker(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Only requests that name this topic. A `*` at the end stands for any rest.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.place = Some(Pattern::new(topic.into()));
        self
    }

    /// Only requests that name this group or transactional id. A `*` at the end stands for any rest.
    pub fn group(self, id: impl Into<String>) -> Self {
        self.topic(id)
    }

    /// Only requests that name this queue or exchange; for `basic.publish` the exchange or the routing key. A `*` at the end
    /// stands for any rest.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.topic(queue)
    }

    /// Only the n-th of them, from 1. 0 counts as 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.when = When::Nth(n.max(1));
        self
    }

    /// Every n-th of them: the n-th, the 2n-th and so on. 0 counts as 1.
    pub fn every(mut self, n: u64) -> Self {
        self.when = When::Every(n.max(1));
        self
    }

    /// The first n of them.
    pub fn first(mut self, n: u64) -> Self {
        self.when = When::First(n);
        self
    }

    /// Each of them with this probability, drawn from the seed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] unless it lies from 0 to 1.
    pub fn chance(mut self, probability: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&probability) {
            let text = format!("the chance of a fault is {probability}; it must be from 0 to 1");
            return Err(Error::new(ErrorKind::Config, text));
        }
        self.when = When::Chance(probability);
        Ok(self)
    }

    /// Not before the faults have been in force for so long. Requests before that are not counted.
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    /// Not from that time on.
    pub fn until(mut self, time: Duration) -> Self {
        self.until = Some(time);
        self
    }
}

/// A name, or the beginning of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    open: bool,
}

impl Pattern {
    pub(crate) fn new(mut text: String) -> Self {
        let open = text.ends_with('*');
        if open {
            text.pop();
        }
        Self { text, open }
    }

    pub(crate) fn fits(&self, name: &str) -> bool {
        if self.open { name.starts_with(&self.text) } else { name == self.text }
    }
}
