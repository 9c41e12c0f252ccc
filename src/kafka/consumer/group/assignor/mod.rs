//! stub
use std::collections::BTreeMap;
use bytes::Bytes;
use super::protocol::Subscription;
use crate::Topic;
use crate::kafka::offsets::Place;
/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assignor { /// a
 Range, /// a
 RoundRobin, /// a
 Sticky, /// a
 CooperativeSticky }
impl Assignor {
    /// Name.
    #[must_use]
    pub const fn name(self) -> &'static str { match self { Self::Range => "range", Self::RoundRobin => "roundrobin", Self::Sticky => "sticky", Self::CooperativeSticky => "cooperative-sticky" } }
    /// By name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> { [Self::Range, Self::RoundRobin, Self::Sticky, Self::CooperativeSticky].into_iter().find(|a| a.name() == name) }
    /// c
    #[must_use]
    pub const fn is_cooperative(self) -> bool { matches!(self, Self::CooperativeSticky) }
    pub(crate) fn user_data(self, _owned: &[Place], _generation: i32) -> Option<Bytes> { None }
    pub(crate) fn assign(self, members: &[Member], topics: &BTreeMap<Topic, TopicShape>) -> BTreeMap<String, Vec<Place>> {
        let mut out: BTreeMap<String, Vec<Place>> = members.iter().map(|m| (m.id.clone(), Vec::new())).collect();
        for (t, s) in topics {
            for (n, m) in (0..s.partitions).zip(members.iter().cycle()) {
                out.get_mut(&m.id).unwrap().push((t.clone(), crate::Partition(n as i32)));
            }
        }
        if self.is_cooperative() { for m in members { for o in &m.subscription.owned { for (id, v) in &mut out { if *id != m.id { v.retain(|x| x != o); } } } } }
        out
    }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member { pub id: String, pub instance: Option<String>, pub subscription: Subscription }
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TopicShape { pub partitions: usize, pub racks: Vec<Vec<String>> }
