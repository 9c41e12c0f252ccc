//! Groups: their members and their offsets. Pure: requests and time in, answers out.
//!
//! ```text
//! coordinator   which broker coordinates a group or a transactional id
//! offsets       committed offsets, and those that wait for a transaction's end
//! classic       groups whose clients assign (JoinGroup, SyncGroup)
//! ```
//!
//! A group that only commits offsets is a classic one without members and without a protocol type.

mod classic;
mod coordinator;
mod offsets;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

use classic::Classic;
pub(super) use coordinator::{Coordinated, Coordinators};
pub(super) use offsets::{Committed, Offsets};

/// What groups are told, with the real broker's names.
#[derive(Debug, Clone)]
pub(crate) struct GroupSettings {
    /// `offset.metadata.max.bytes`. Default 4096.
    pub(crate) max_metadata: usize,
    /// `offsets.retention.minutes`. Default 7 days.
    pub(crate) offsets_retention: Duration,
    /// Groups at once. Default 10,000.
    pub(crate) max_groups: usize,
    /// Bytes that all groups may take, roughly. Default 256 MiB.
    pub(crate) memory_limit: usize,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            max_metadata: 4096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            max_groups: 10_000,
            memory_limit: 256 * 1024 * 1024,
        }
    }
}

/// Text of its own, so that it does not keep the request alive that it came in.
pub(super) fn own(text: &StrBytes) -> StrBytes {
    StrBytes::from_string(text.as_str().to_owned())
}

/// Who commits or fetches offsets.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    /// Generation of a classic member, epoch of a consumer member, -1 for none.
    pub(super) generation: i32,
    /// Empty for none.
    pub(super) member: StrBytes,
    pub(super) instance: Option<StrBytes>,
    /// The request's version.
    pub(super) version: i16,
    /// Asks within a transaction.
    pub(super) transactional: bool,
}

/// An offset to commit.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) topic: StrBytes,
    pub(super) partition: i32,
    pub(super) committed: Committed,
}

#[derive(Debug)]
struct Group {
    members: Members,
    offsets: Offsets,
    /// What it took of the memory when that was last counted.
    bytes: usize,
}

#[derive(Debug)]
enum Members {
    Classic(Classic),
}

impl Group {
    fn new() -> Self {
        Self { members: Members::Classic(Classic::default()), offsets: Offsets::default(), bytes: 0 }
    }

    fn count(&self, id: &StrBytes) -> usize {
        256 + id.len() + self.offsets.bytes()
    }
}

/// All groups of the cluster.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) settings: GroupSettings,
    groups: BTreeMap<StrBytes, Group>,
    bytes: usize,
}

impl Groups {
    pub(super) fn new(settings: GroupSettings) -> Self {
        Self { settings, groups: BTreeMap::new(), bytes: 0 }
    }

    /// Changes a group and counts its memory anew.
    fn with<R>(&mut self, id: &StrBytes, change: impl FnOnce(&mut Group) -> R) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        let result = change(group);
        let bytes = group.count(id);
        self.bytes = self.bytes + bytes - group.bytes;
        group.bytes = bytes;
        Some(result)
    }

    /// Is there room for one more thing of so many bytes?
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.settings.memory_limit
    }

    fn create(&mut self, id: &StrBytes) -> Result<(), Code> {
        if self.groups.contains_key(id) {
            return Ok(());
        }
        if self.groups.len() >= self.settings.max_groups || !self.has_room(0) {
            return Err(Code::GroupMaxSizeReached);
        }
        let id = own(id);
        self.groups.insert(id.clone(), Group::new());
        self.with(&id, |_| ());
        Ok(())
    }

    /// May `asker` commit offsets? A group that is not there is made where nobody's membership is claimed.
    fn admit_commit(&mut self, id: &StrBytes, asker: &Asker) -> Result<(), Code> {
        match self.groups.get(id) {
            Some(group) => match &group.members {
                Members::Classic(classic) => classic.check_commit(asker),
            },
            None if asker.generation < 0 => self.create(id),
            None => Err(Code::IllegalGeneration),
        }
    }

    /// Commits offsets. Returns those that a member may no longer commit (STALE_MEMBER_EPOCH).
    ///
    /// # Errors
    /// What refuses them all.
    pub(super) fn commit(
        &mut self,
        id: &StrBytes,
        asker: &Asker,
        offsets: Vec<Offered>,
        now: Instant,
    ) -> Result<Vec<(StrBytes, i32)>, Code> {
        let _ = now;
        self.admit_commit(id, asker)?;
        self.admit_bytes(&offsets)?;
        self.with(id, |group| {
            for o in offsets {
                group.offsets.commit(o.topic, o.partition, o.committed);
            }
        });
        Ok(Vec::new())
    }

    /// Keeps offsets until [`complete_transaction`](Self::complete_transaction).
    ///
    /// # Errors
    /// What refuses them all.
    pub(super) fn stage_offsets(
        &mut self,
        id: &StrBytes,
        asker: &Asker,
        producer: i64,
        offsets: Vec<Offered>,
    ) -> Result<(), Code> {
        self.admit_commit(id, asker)?;
        self.admit_bytes(&offsets)?;
        self.with(id, |group| {
            for o in offsets {
                group.offsets.stage(producer, o.topic, o.partition, o.committed);
            }
        });
        Ok(())
    }

    fn admit_bytes(&self, offsets: &[Offered]) -> Result<(), Code> {
        let added = offsets.iter().map(|o| o.committed.metadata.len() + 128).sum();
        if self.has_room(added) { Ok(()) } else { Err(Code::InvalidCommitOffsetSize) }
    }

    /// A producer's transaction ended: its offsets in this group take effect, or are dropped.
    pub(super) fn complete_transaction(&mut self, id: &StrBytes, producer: i64, commit: bool) {
        self.with(id, |group| group.offsets.complete(producer, commit));
    }

    /// A group's offsets, for one who may see them.
    ///
    /// # Errors
    /// What refuses the asker; `Ok(None)` for a group that is not there.
    pub(super) fn offsets(&self, id: &StrBytes, asker: &Asker) -> Result<Option<&Offsets>, Code> {
        let _ = asker;
        Ok(self.groups.get(id).map(|g| &g.offsets))
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.
    pub(super) fn delete(&mut self, id: &StrBytes) -> Result<(), Code> {
        let group = self.groups.get(id).ok_or(Code::GroupIdNotFound)?;
        self.bytes -= group.bytes;
        self.groups.remove(id);
        Ok(())
    }

    /// A topic was deleted: what was committed for it goes too.
    pub(super) fn handle_topic_deleted(&mut self, topic: &str) {
        let topic = StrBytes::from_string(topic.to_owned());
        let ids: Vec<StrBytes> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with(&id, |group| group.offsets.remove_topic(&topic));
        }
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self::new(GroupSettings::default())
    }
}
