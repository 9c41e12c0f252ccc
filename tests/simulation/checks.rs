//! What must hold of every run, whatever the faults were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muslin::ErrorKind;

use super::history::{History, Outcome};
use super::transaction_checks::{
    last_end_tells_the_truth, offsets_count_with_their_transaction, transactions_are_whole_or_absent,
    transactions_keep_their_order,
};

/// How much later than its delivery timeout an outcome may come: the time of some schedulings.
const GRACE: Duration = Duration::from_millis(100);
/// What is told of one kind of fault.
const TOLD: usize = 5;

/// Everything that is wrong with a run; empty for a good one.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for rule in [
        nothing_was_noted,
        everything_resolves_in_time,
        what_is_stored_is_there_once,
        what_failed_for_certain_is_not_there,
        nothing_is_given_up_without_need,
        the_log_holds_what_was_sent,
        senders_keep_their_order,
        readers_get_what_is_in_the_log,
        readers_get_each_record_in_order,
        every_group_settles_everything,
        commits_stay_below_what_is_unsettled,
        transactions_are_whole_or_absent,
        transactions_keep_their_order,
        last_end_tells_the_truth,
        offsets_count_with_their_transaction,
    ] {
        let found = rule(history);
        let more = found.len().saturating_sub(TOLD);
        wrong.extend(found.into_iter().take(TOLD));
        if more > 0 {
            wrong.push(format!("... and {more} more like it"));
        }
    }
    wrong
}

fn nothing_was_noted(history: &History) -> Vec<String> {
    history.notes.clone()
}

fn everything_resolves_in_time(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for sent in &history.sent {
        let limit = history.delivery_timeout.get(&sent.sender).copied().unwrap_or(Duration::MAX);
        match &sent.outcome {
            None => wrong.push(format!("record {} of sender {} never had an outcome", sent.id, sent.sender)),
            Some((at, outcome)) => {
                let took = at.saturating_sub(sent.at);
                if took > limit.saturating_add(GRACE) {
                    wrong
                        .push(format!("record {} took {took:?} of {limit:?} to become {outcome:?}", sent.id));
                }
            }
        }
    }
    wrong
}

fn what_is_stored_is_there_once(history: &History) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
    for (partition, log) in &history.log {
        for (offset, id) in log {
            places.entry(id).or_default().push((*partition, *offset));
        }
    }
    let mut wrong = Vec::new();
    for (id, places) in &places {
        if places.len() > 1 {
            wrong.push(format!("record {id} was written {} times: {places:?}", places.len()));
        }
    }
    for sent in &history.sent {
        let Some((_, Outcome::Stored { partition, offset })) = &sent.outcome else { continue };
        match places.get(sent.id.as_str()) {
            None => wrong.push(format!("record {} was acknowledged and is lost", sent.id)),
            // A duplicate of long ago is acknowledged without its offset.
            Some(places) if *offset >= 0 && !places.contains(&(*partition, *offset)) => wrong.push(format!(
                "record {} was acknowledged at partition {partition} offset {offset} and lies at {places:?}",
                sent.id
            )),
            Some(_) => {}
        }
    }
    wrong
}

fn what_failed_for_certain_is_not_there(history: &History) -> Vec<String> {
    let stored: BTreeSet<&str> = history.log.values().flatten().map(|(_, id)| id.as_str()).collect();
    let mut wrong = Vec::new();
    for sent in &history.sent {
        if let Some((_, Outcome::Failed(_, why))) = &sent.outcome
            && stored.contains(sent.id.as_str())
        {
            wrong.push(format!("record {} is said to be not written ({why}) and was", sent.id));
        }
    }
    wrong
}

/// A record fails because its time ran out, because the broker refuses it, because there was no room, or because the
/// application closed the producer. For nothing else.
fn nothing_is_given_up_without_need(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for sent in &history.sent {
        let Some((at, Outcome::Failed(kind, why) | Outcome::Unknown(kind, why))) = &sent.outcome else {
            continue;
        };
        let fair = match kind {
            ErrorKind::Closed => history.closed.contains(&(sent.sender, sent.producer)),
            // The time ran out: that of the batch, which began with its first record. Where the topic was said to be
            // unknown until then, the error says that.
            ErrorKind::Timeout | ErrorKind::NotFound => {
                sent.partition < 0 || why.contains("(delivery_timeout)")
            }
            // A broker refused the batch for good.
            kind if history.refused.contains(kind.as_str()) => true,
            // The broker lost the producer's state while an attempt was unsure (KIP-360).
            ErrorKind::Fenced | ErrorKind::Broker => matches!(sent.outcome, Some((_, Outcome::Unknown(..)))),
            _ => sent.partition < 0,
        };
        if !fair {
            wrong.push(format!(
                "record {} of sender {} was given up after {:?}: {kind:?}: {why}",
                sent.id,
                sent.sender,
                at.saturating_sub(sent.at)
            ));
        }
    }
    wrong
}

fn the_log_holds_what_was_sent(history: &History) -> Vec<String> {
    let in_transactions =
        history.transactions.iter().flat_map(|t| t.records.iter().map(|(_, id, _)| id).chain(&t.refused));
    let sent: BTreeSet<&str> =
        history.sent.iter().map(|s| &s.id).chain(in_transactions).map(String::as_str).collect();
    let log = history.log.values().flatten();
    log.filter(|(_, id)| !sent.contains(id.as_str()))
        .map(|(_, id)| format!("nobody sent record {id}"))
        .collect()
}

fn senders_keep_their_order(history: &History) -> Vec<String> {
    let turn: BTreeMap<&str, ((usize, u64), usize)> =
        history.sent.iter().enumerate().map(|(n, s)| (s.id.as_str(), ((s.sender, s.producer), n))).collect();
    let mut wrong = Vec::new();
    for (partition, log) in &history.log {
        let mut last: BTreeMap<(usize, u64), (usize, &str)> = BTreeMap::new();
        for (offset, id) in log {
            let Some((sender, n)) = turn.get(id.as_str()) else { continue };
            if let Some((before, other)) = last.insert(*sender, (*n, id))
                && before > *n
            {
                wrong.push(format!(
                    "partition {partition} offset {offset}: record {id} was sent before {other} and stands behind it"
                ));
            }
        }
    }
    wrong
}

fn readers_get_what_is_in_the_log(history: &History) -> Vec<String> {
    let log: BTreeMap<(i32, i64), &str> = history
        .log
        .iter()
        .flat_map(|(p, log)| log.iter().map(move |(offset, id)| ((*p, *offset), id.as_str())))
        .collect();
    let mut wrong = Vec::new();
    for got in &history.got {
        let there = log.get(&(got.partition, got.offset)).copied();
        if there != Some(got.id.as_str()) {
            wrong.push(format!(
                "group {} read {} at partition {} offset {}, where the log has {there:?}",
                got.group, got.id, got.partition, got.offset
            ));
        }
    }
    wrong
}

fn readers_get_each_record_in_order(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last: BTreeMap<(usize, usize, i32), i64> = BTreeMap::new();
    for got in &history.got {
        let key = (got.group, got.consumer, got.partition);
        let at = format!("group {} consumer {} partition {}", got.group, got.consumer, got.partition);
        let before = last.get(&key).copied().unwrap_or(-1);
        if got.attempt > 1 {
            // Given back before: it comes again, behind what was read meanwhile.
            if got.offset > before {
                wrong.push(format!("{at}: offset {} comes again and never came before", got.offset));
            }
            continue;
        }
        if got.offset <= before {
            wrong.push(format!("{at}: offset {} came after {before}", got.offset));
        }
        // What the consumer passed over must have been settled before it began.
        last.insert(key, got.offset.max(before));
    }
    wrong
}

fn every_group_settles_everything(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for (group, settled) in &history.settled {
        for (partition, log) in &history.log {
            for (offset, id) in log {
                if !settled.contains(&(*partition, *offset)) {
                    wrong.push(format!(
                        "group {group} never settled record {id} at partition {partition} offset {offset}"
                    ));
                }
            }
        }
    }
    wrong
}

fn commits_stay_below_what_is_unsettled(history: &History) -> Vec<String> {
    let past = history.committed.iter().filter(|c| c.offset > c.unsettled_from);
    past.map(|c| {
        format!(
            "group {} partition {}: {} was committed while {} was not settled",
            c.group, c.partition, c.offset, c.unsettled_from
        )
    })
    .collect()
}

/// Each rule is shown a history that breaks it, so that a green run means something.
mod bad_histories {
    use super::super::history::{Committed, Got, Sent};
    use super::*;

    fn sent(id: &str, outcome: Outcome) -> Sent {
        let outcome = Some((Duration::from_secs(2), outcome));
        Sent { id: id.to_owned(), producer: 0, sender: 1, partition: 0, at: Duration::from_secs(1), outcome }
    }

    fn stored(id: &str, offset: i64) -> Sent {
        sent(id, Outcome::Stored { partition: 0, offset })
    }

    fn got(offset: i64, id: &str, attempt: u32) -> Got {
        Got { group: 0, consumer: 0, partition: 0, offset, id: id.to_owned(), attempt }
    }

    /// Three records sent, stored, read and committed.
    fn good() -> History {
        let ids = ["a", "b", "c"];
        let log: Vec<(i64, String)> = (0..).zip(ids.map(str::to_owned)).collect();
        History {
            delivery_timeout: [(1, Duration::from_secs(5))].into(),
            sent: vec![stored("a", 0), stored("b", 1), stored("c", 2)],
            got: vec![got(0, "a", 1), got(1, "b", 1), got(0, "a", 2), got(2, "c", 1)],
            committed: vec![Committed { group: 0, partition: 0, offset: 2, unsettled_from: 2 }],
            settled: [(0, (0..3).map(|o| (0, o)).collect())].into(),
            log: [(0, log)].into(),
            notes: Vec::new(),
            closed: BTreeSet::new(),
            refused: BTreeSet::new(),
            ..History::default()
        }
    }

    /// What the checks say of the good history after this change.
    fn after(change: impl FnOnce(&mut History)) -> String {
        let mut history = good();
        change(&mut history);
        check(&history).join("\n")
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(after(|_| {}), "");
        assert_eq!(after(|h| h.sent[1] = sent("b", Outcome::Unknown(ErrorKind::Broker, "lost".into()))), "");
    }

    #[test]
    fn a_lost_record_is_found() {
        let lost = after(|h| {
            h.log.get_mut(&0).unwrap().pop();
            h.got.pop();
        });
        assert_eq!(lost, "record c was acknowledged and is lost");
    }

    #[test]
    fn a_record_written_twice_is_found() {
        let twice = after(|h| {
            h.log.get_mut(&0).unwrap().push((3, "b".into()));
            h.settled.get_mut(&0).unwrap().insert((0, 3));
        });
        assert!(twice.contains("record b was written 2 times"), "{twice}");
        assert!(twice.contains("stands behind it"), "{twice}");
    }

    #[test]
    fn a_wrong_offset_in_an_acknowledgement_is_found() {
        assert!(after(|h| h.sent[2] = stored("c", 7)).contains("lies at [(0, 2)]"));
        assert_eq!(after(|h| h.sent[2] = stored("c", -1)), "");
    }

    #[test]
    fn a_failure_that_was_written_is_found() {
        let wrong = after(|h| h.sent[0] = sent("a", Outcome::Failed(ErrorKind::Broker, "no".into())));
        assert!(wrong.contains("record a is said to be not written (no) and was"), "{wrong}");
    }

    #[test]
    fn a_record_given_up_without_need_is_found() {
        let closed =
            |h: &mut History| h.sent[1] = sent("b", Outcome::Unknown(ErrorKind::Closed, "gone".into()));
        assert!(after(closed).contains("record b of sender 1 was given up after 1s: Closed: gone"));
        let with_leave = |h: &mut History| {
            closed(h);
            h.closed.insert((1, 0));
        };
        assert_eq!(after(with_leave), "");
        let early =
            |h: &mut History| h.sent[1] = sent("b", Outcome::Unknown(ErrorKind::Timeout, "slow".into()));
        assert!(after(early).contains("given up after 1s: Timeout"));
    }

    #[test]
    fn an_outcome_that_is_late_or_missing_is_found() {
        assert!(
            after(|h| h.sent[0].outcome.as_mut().unwrap().0 = Duration::from_secs(7)).contains("took 6s")
        );
        assert!(after(|h| h.sent[0].outcome = None).contains("never had an outcome"));
    }

    #[test]
    fn a_broken_order_is_found() {
        let swapped = after(|h| {
            h.log.get_mut(&0).unwrap().swap(0, 1);
            h.log.get_mut(&0).unwrap()[0].0 = 0;
            h.log.get_mut(&0).unwrap()[1].0 = 1;
        });
        assert!(swapped.contains("record a was sent before b and stands behind it"), "{swapped}");
    }

    #[test]
    fn a_record_from_nowhere_is_found() {
        assert!(after(|h| drop(h.sent.pop())).contains("nobody sent record c"));
        assert!(after(|h| h.got[0].id = "x".into()).contains("where the log has Some(\"a\")"));
    }

    #[test]
    fn a_record_read_twice_or_out_of_order_is_found() {
        assert!(after(|h| h.got.push(got(1, "b", 1))).contains("offset 1 came after 2"));
        assert!(after(|h| h.got.push(got(2, "c", 2))).is_empty());
        assert!(after(|h| h.got.insert(0, got(1, "b", 2))).contains("never came before"));
    }

    #[test]
    fn a_record_that_nobody_settles_is_found() {
        let wrong = after(|h| _ = h.settled.get_mut(&0).unwrap().remove(&(0, 1)));
        assert_eq!(wrong, "group 0 never settled record b at partition 0 offset 1");
    }

    #[test]
    fn a_commit_past_unsettled_work_is_found() {
        let wrong = after(|h| h.committed[0].offset = 3);
        assert_eq!(wrong, "group 0 partition 0: 3 was committed while 2 was not settled");
    }

    #[test]
    fn many_of_a_kind_are_summed_up() {
        let many = after(|h| h.notes = (0..9).map(|n| format!("note {n}")).collect());
        assert!(many.contains("note 4") && !many.contains("note 5") && many.contains("and 4 more"), "{many}");
    }
}
