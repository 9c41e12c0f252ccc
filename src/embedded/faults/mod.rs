//! Faults on demand, for both brokers. Pure.
//!
//! ```text
//! request --> decide(facts, now) --+-- no rule fires --> worked as always
//!                                  +-- Decision -------> the broker carries out its action, `met` records it
//! ```
//!
//! A rule says which requests it is about ([`Rule`]) and what happens ([`Action`]). Every rule counts the requests that it
//! fits, whether or not another fires on them; where several would fire, the one that was added first does. Chances are
//! drawn from the seed, the rule's number and its count alone: the same requests meet the same faults.

mod action;
mod file;
mod names;
mod rule;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use action::Action;
pub(crate) use names::Kind;
pub use rule::Rule;

use self::rule::When;
use super::machine::ConnectionId;
use crate::random::mix;
use crate::{Error, ErrorKind, NodeId, Result};

/// What happened and is remembered; older ones are forgotten. Memory: some hundred bytes each.
const MET: usize = 4096;
/// Answers that can be held at once. One more is not held but answered.
const HELD: usize = 1024;
/// Rules that can stand at once.
const RULES: usize = 1024;

/// What a broker knows of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The broker that got it; RabbitMQ is node 0.
    pub(crate) node: NodeId,
    /// The connection that it came on.
    pub(crate) connection: ConnectionId,
    /// The client id or connection name.
    pub(crate) client_id: Option<&'a str>,
    /// What it is.
    pub(crate) kind: Kind,
    /// The topics, groups and transactional ids, or the queues, exchanges and routing keys that it names.
    pub(crate) places: &'a [&'a str],
}

/// That a rule fires, and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The number of this decision. An answer that is held is released under it.
    pub(crate) id: u64,
    /// What to do.
    pub(crate) action: Action,
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// When, since the faults are in force.
    pub at: Duration,
    /// The rule's name, if it has one.
    pub rule: Option<String>,
    /// What was done.
    pub action: Action,
    /// The request, as `Produce` or `basic.publish`.
    pub request: String,
    /// The broker that got it.
    pub broker: NodeId,
    /// The connection that it came on.
    pub connection: ConnectionId,
    /// The client id or connection name.
    pub client: Option<String>,
    /// The topics, groups and transactional ids, or the queues, exchanges and routing keys that it named.
    pub places: Vec<String>,
}

/// The faults of a broker: rules, and what they did.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    seed: u64,
    rules: Vec<Standing>,
    added: u64,
    decisions: u64,
    met: VecDeque<Met>,
    forgotten: u64,
    start: Option<Instant>,
    held: Vec<(u64, String)>,
    released: VecDeque<u64>,
}

/// A rule in force.
#[derive(Debug, Clone)]
struct Standing {
    rule: Rule,
    number: u64,
    seen: u64,
}

impl Faults {
    /// No faults yet; chances will be drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The same with one rule more.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] beyond 1,024 rules.
    pub fn with(mut self, rule: Rule) -> Result<Self> {
        self.add(rule)?;
        Ok(self)
    }

    /// Reads rules from JSON: a document `{"seed": 7, "rules": [...]}`, or a rule a line. `docs/faults.md` lists the fields.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the rule, the value and what was expected.
    pub fn from_json(text: &str) -> Result<Self> {
        file::read(text)
    }

    /// Adds a rule. It counts from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] beyond 1,024 rules.
    pub fn add(&mut self, rule: Rule) -> Result<()> {
        if self.rules.len() >= RULES {
            let text = format!("there are {RULES} fault rules already; remove some first");
            return Err(Error::new(ErrorKind::Full, text));
        }
        self.rules.push(Standing { rule, number: self.added, seen: 0 });
        self.added += 1;
        Ok(())
    }

    /// Takes away the rules of this name; how many there were. What they hold stays held.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.rules.len();
        self.rules.retain(|s| s.rule.name.as_deref() != Some(name));
        before - self.rules.len()
    }

    /// Takes away all rules. What they hold stays held.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// Lets go the answers that are held under this name; how many there were.
    pub fn release(&mut self, name: &str) -> usize {
        let before = self.held.len();
        let released = &mut self.released;
        self.held.retain(|(id, held)| {
            if held == name {
                released.push_back(*id);
            }
            held != name
        });
        before - self.held.len()
    }

    /// How many answers are held under this name.
    #[must_use]
    pub fn held(&self, name: &str) -> usize {
        self.held.iter().filter(|(_, held)| held == name).count()
    }

    /// What happened so far, the oldest first. The last 4,096 are kept.
    pub fn met(&self) -> impl ExactSizeIterator<Item = &Met> {
        self.met.iter()
    }

    /// How many faults happened, those that are not remembered any more included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.forgotten + self.met.len() as u64
    }

    /// Whether there is no rule: nobody needs to be asked then.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule looks at the topics or queues of requests of this kind; if not, the broker need not gather them.
    pub(crate) fn wants_places(&self, kind: Kind) -> bool {
        self.rules.iter().any(|s| s.rule.kinds.is_empty() || s.rule.kinds.contains(&kind))
    }

    /// Sets the time from which [`Rule::after`] and [`Rule::until`] count: when the broker starts. Without it that is the
    /// first request.
    pub(crate) fn handle_start(&mut self, now: Instant) {
        self.start.get_or_insert(now);
    }

    /// What is to happen to a request. To be asked once for each request, in the order in which they are worked.
    pub(crate) fn decide(&mut self, facts: &Facts<'_>, now: Instant) -> Option<Decision> {
        if self.rules.is_empty() {
            return None;
        }
        let at = now.saturating_duration_since(*self.start.get_or_insert(now));
        let mut fired: Option<(Option<String>, Action)> = None;
        for standing in &mut self.rules {
            if standing.decide(self.seed, facts, at) && fired.is_none() {
                fired = Some((standing.rule.name.clone(), standing.rule.action.clone()));
            }
        }
        let (rule, action) = fired?;
        if let Action::Hold(name) = &action {
            if self.held.len() >= HELD {
                return None;
            }
            self.held.push((self.decisions, name.clone()));
        }
        if self.met.len() >= MET {
            self.met.pop_front();
            self.forgotten += 1;
        }
        self.met.push_back(Met {
            at,
            rule,
            action: action.clone(),
            request: facts.kind.name(),
            broker: facts.node,
            connection: facts.connection,
            client: facts.client_id.map(str::to_owned),
            places: facts.places.iter().map(|p| (*p).to_owned()).collect(),
        });
        let id = self.decisions;
        self.decisions += 1;
        Some(Decision { id, action })
    }

    /// A held answer that is to leave now, by the number of its decision.
    pub(crate) fn poll_released(&mut self) -> Option<u64> {
        self.released.pop_front()
    }

    /// A held answer that will never leave: its connection is gone.
    pub(crate) fn handle_abandoned(&mut self, id: u64) {
        self.held.retain(|(held, _)| *held != id);
    }
}

impl Standing {
    /// Counts the request if the rule fits it; whether the rule fires on it.
    fn decide(&mut self, seed: u64, facts: &Facts<'_>, at: Duration) -> bool {
        let rule = &self.rule;
        let fits = (rule.kinds.is_empty() || rule.kinds.contains(&facts.kind))
            && rule.action.fits(facts.kind)
            && rule.node.is_none_or(|node| node == facts.node)
            && rule.client.as_ref().is_none_or(|p| facts.client_id.is_some_and(|id| p.fits(id)))
            && rule.place.as_ref().is_none_or(|p| facts.places.iter().any(|place| p.fits(place)))
            && at >= rule.after
            && rule.until.is_none_or(|until| at < until);
        if !fits {
            return false;
        }
        self.seen += 1;
        match rule.when {
            When::All => true,
            When::Nth(n) => self.seen == n,
            When::Every(n) => self.seen.is_multiple_of(n),
            When::First(n) => self.seen <= n,
            When::Chance(p) => unit(seed, self.number, self.seen) < p,
        }
    }
}

/// A number from 0 to below 1 that depends on these three alone.
fn unit(seed: u64, rule: u64, count: u64) -> f64 {
    let mixed = mix(mix(mix(seed) ^ rule) ^ count);
    // The 53 bits that a double holds.
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
