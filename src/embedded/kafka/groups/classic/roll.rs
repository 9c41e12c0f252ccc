//! A classic group's bookkeeping: members come and go, sessions, and who may do what.

use std::time::Instant;

use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

use super::super::{Answer, Asker, Joined, Synced};
use super::{Classic, Out, State};

impl Classic {
    pub(super) fn remove(&mut self, id: &StrBytes, code: Code, out: &mut Out) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(ends) = member.session_ends {
            self.sessions.remove(&(ends, id.clone()));
        }
        if let Some(instance) = &member.instance
            && self.statics.get(instance) == Some(id)
        {
            self.statics.remove(instance);
        }
        self.unsynced.remove(id);
        if self.leader.as_ref() == Some(id) {
            let joined = self.members.iter().find(|(_, m)| m.joining.is_some());
            self.leader = joined.or(self.members.iter().next()).map(|(id, _)| id.clone());
        }
        if let Some(waiting) = member.joining {
            out.push(Answer::Join(waiting, Joined::refused(id.clone(), code)));
        }
        if let Some(waiting) = member.syncing {
            out.push(Answer::Sync(waiting, Synced::refused(code)));
        }
    }

    pub(super) fn forget_pending(&mut self, id: &StrBytes) {
        if let Some(ends) = self.pending.remove(id) {
            self.sessions.remove(&(ends, id.clone()));
        }
    }

    pub(super) fn set_session(&mut self, id: &StrBytes, ends: Instant) {
        if let Some(member) = self.members.get_mut(id) {
            if let Some(old) = member.session_ends.replace(ends) {
                self.sessions.remove(&(old, id.clone()));
            }
            self.sessions.insert((ends, id.clone()));
        }
    }

    pub(super) fn renew_session(&mut self, id: &StrBytes, now: Instant) {
        if let Some(timeout) = self.members.get(id).map(|m| m.session_timeout) {
            self.set_session(id, now + timeout);
        }
    }

    pub(super) fn check_member(&self, id: &StrBytes, instance: Option<&StrBytes>) -> Result<(), Code> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(Code::UnknownMemberId),
                Some(holder) if holder != id => return Err(Code::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(Code::UnknownMemberId) }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), Code> {
        if generation == self.generation { Ok(()) } else { Err(Code::IllegalGeneration) }
    }

    /// May offsets be committed?
    pub(in crate::embedded::kafka::groups) fn check_commit(&self, asker: &Asker) -> Result<(), Code> {
        if asker.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if asker.generation >= 0 || !asker.member.is_empty() || asker.instance.is_some() {
            self.check_member(&asker.member, asker.instance.as_ref())?;
            self.check_generation(asker.generation)?;
        } else if !asker.transactional && self.state != State::Empty {
            return Err(Code::UnknownMemberId);
        }
        if !asker.transactional && self.state == State::CompletingRebalance {
            return Err(Code::RebalanceInProgress);
        }
        Ok(())
    }

    /// A member committed: it is alive.
    pub(in crate::embedded::kafka::groups) fn handle_commit(&mut self, asker: &Asker, now: Instant) {
        if self.members.contains_key(&asker.member) {
            self.renew_session(&asker.member, now);
        }
    }
}
