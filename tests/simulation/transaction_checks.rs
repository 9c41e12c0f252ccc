//! What must hold of every transaction, whatever the faults were.

use std::collections::{BTreeMap, BTreeSet};

use muslin::kafka::TransactionEnd;

use super::history::{End, History};

/// All records of a committed transaction are there once, where they were said to be; none of another. Where nobody can
/// know, all or none.
pub fn transactions_are_whole_or_absent(history: &History) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
    for (partition, log) in &history.log {
        for (offset, id) in log {
            places.entry(id).or_default().push((*partition, *offset));
        }
    }
    let mut wrong = Vec::new();
    for t in &history.transactions {
        let (mut there, mut absent) = (Vec::new(), Vec::new());
        for (partition, id, offset) in &t.records {
            let Some(found) = places.get(id.as_str()) else {
                absent.push(id);
                continue;
            };
            there.push(id);
            let right = |(p, o): &(i32, i64)| p == partition && offset.is_none_or(|offset| offset == *o);
            if found.len() != 1 || !found.iter().all(right) {
                wrong.push(format!(
                    "record {id} of transaction {} lies at {found:?}; expected once at partition {partition} offset {offset:?}",
                    t.id
                ));
            }
        }
        for id in t.refused.iter().filter(|id| places.contains_key(id.as_str())) {
            wrong.push(format!("record {id} of transaction {} was refused and is there", t.id));
        }
        if t.counts() == Some(true) && !t.lost.is_empty() {
            wrong.push(format!("transaction {} was committed though records failed: {:?}", t.id, t.lost));
        }
        let fair = match t.counts() {
            Some(true) => absent.is_empty(),
            Some(false) => there.is_empty(),
            None => absent.is_empty() || there.is_empty(),
        };
        if !fair {
            wrong.push(format!(
                "transaction {} ended as {:?}, last_end {:?}; there: {there:?}; absent: {absent:?}",
                t.id, t.end, t.last_end
            ));
        }
    }
    wrong
}

pub fn transactions_keep_their_order(history: &History) -> Vec<String> {
    let records = history.transactions.iter().flat_map(|t| t.records.iter().map(move |r| (t, r)));
    let turn: BTreeMap<&str, (&str, usize)> =
        records.enumerate().map(|(n, (t, (_, id, _)))| (id.as_str(), (t.producer.as_str(), n))).collect();
    let mut wrong = Vec::new();
    for (partition, log) in &history.log {
        let mut last: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for (offset, id) in log {
            let Some((producer, n)) = turn.get(id.as_str()) else { continue };
            if let Some((before, other)) = last.insert(producer, (*n, id))
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

pub fn last_end_tells_the_truth(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for t in &history.transactions {
        let fair = match (&t.end, t.last_end) {
            (None, _) => false,
            (_, None) | (Some(End::Unknown(_)), _) => true,
            (Some(End::Committed), Some(end)) => end == TransactionEnd::Committed,
            (Some(End::Failed(_) | End::Aborted), Some(end)) => end == TransactionEnd::Aborted,
        };
        if !fair {
            wrong.push(format!(
                "transaction {} ended as {:?}, and last_end says {:?}",
                t.id, t.end, t.last_end
            ));
        }
    }
    wrong
}

/// An offset of a transaction that was aborted is never seen; at the end the last that was committed is.
pub fn offsets_count_with_their_transaction(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut may: BTreeSet<(&str, i32, i64)> = BTreeSet::new();
    let mut must: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for t in &history.transactions {
        if t.counts() == Some(false) {
            continue;
        }
        for (partition, offset) in t.offsets.iter().chain(&t.unsure_offsets) {
            may.insert((&t.producer, *partition, *offset));
        }
        if t.counts() == Some(true) {
            must.extend(
                t.offsets.iter().map(|(partition, offset)| ((t.producer.as_str(), *partition), *offset)),
            );
        }
    }
    let last = history.last_offsets.iter().map(|((group, partition), offset)| (group, partition, offset));
    for (group, partition, offset) in history.seen_offsets.iter().map(|(g, p, o)| (g, p, o)).chain(last) {
        if !may.contains(&(group, *partition, *offset)) {
            wrong.push(format!(
                "group {group} partition {partition}: {offset} is committed by no transaction"
            ));
        }
    }
    for ((group, partition), offset) in must {
        let there = history.last_offsets.get(&(group.to_owned(), partition)).copied();
        // Offsets grow: a later one may be of a transaction of which nobody knows.
        if there.is_none_or(|there| there < offset) {
            wrong.push(format!(
                "group {group} partition {partition}: {offset} was committed, and at the end {there:?} is"
            ));
        }
    }
    wrong
}

/// Each rule is shown a history that breaks it, so that a green run means something.
mod bad_histories {
    use super::super::checks::check;
    use super::super::history::Transaction;
    use super::*;

    fn transaction(n: i64, end: End, last_end: TransactionEnd) -> Transaction {
        let id = format!("p/{n}");
        Transaction {
            records: vec![(0, format!("{id}/a"), Some(n)), (1, format!("{id}/b"), Some(n))],
            id,
            producer: "p".to_owned(),
            offsets: vec![(0, n * 10)],
            end: Some(end),
            last_end: Some(last_end),
            ..Transaction::default()
        }
    }

    /// Two that were committed, and an aborted one between them.
    fn good() -> History {
        let log = |name: &str| vec![(1, format!("p/1/{name}")), (3, format!("p/3/{name}"))];
        History {
            transactions: vec![
                transaction(1, End::Committed, TransactionEnd::Committed),
                transaction(2, End::Aborted, TransactionEnd::Aborted),
                transaction(3, End::Committed, TransactionEnd::Committed),
            ],
            log: [(0, log("a")), (1, log("b"))].into(),
            seen_offsets: [("p".to_owned(), 0, 10)].into(),
            last_offsets: [(("p".to_owned(), 0), 30)].into(),
            ..History::default()
        }
    }

    /// What the checks say of the good history after this change.
    fn after(change: impl FnOnce(&mut History)) -> String {
        let mut history = good();
        change(&mut history);
        check(&history).join("\n")
    }

    fn unknown(t: &mut Transaction) {
        (t.end, t.last_end) = (Some(End::Unknown("lost".to_owned())), None);
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(after(|_| {}), "");
        assert_eq!(after(|h| unknown(&mut h.transactions[2])), "");
    }

    #[test]
    fn a_transaction_in_part_is_found() {
        let part = |h: &mut History| drop(h.log.get_mut(&1).unwrap().pop());
        assert!(after(part).contains("transaction p/3 ended as Some(Committed)"));
        let unsure = after(|h| {
            part(h);
            unknown(&mut h.transactions[2]);
        });
        assert!(unsure.contains("there: [\"p/3/a\"]; absent: [\"p/3/b\"]"), "{unsure}");
    }

    #[test]
    fn a_record_of_an_aborted_transaction_is_found() {
        let wrong = after(|h| h.log.get_mut(&0).unwrap().insert(1, (2, "p/2/a".into())));
        assert!(wrong.contains("transaction p/2 ended as Some(Aborted)"), "{wrong}");
    }

    #[test]
    fn a_record_twice_elsewhere_refused_or_lost_is_found() {
        assert!(after(|h| h.log.get_mut(&0).unwrap().push((4, "p/3/a".into()))).contains("expected once"));
        assert!(after(|h| h.transactions[0].records[0].2 = Some(9)).contains("expected once"));
        assert!(after(|h| h.transactions[0].records[0].0 = 1).contains("expected once"));
        assert!(
            after(|h| {
                let record = h.transactions[0].records.remove(0);
                h.transactions[0].refused.push(record.1);
            })
            .contains("was refused and is there")
        );
        assert!(
            after(|h| h.transactions[0].lost.push("x".into())).contains("committed though records failed")
        );
    }

    #[test]
    fn a_broken_order_is_found() {
        let swapped = after(|h| h.transactions.swap(0, 2));
        assert!(swapped.contains("stands behind it"), "{swapped}");
    }

    #[test]
    fn a_wrong_last_end_is_found() {
        let wrong = after(|h| h.transactions[0].last_end = Some(TransactionEnd::Unknown));
        assert!(wrong.contains("transaction p/1 ended as Some(Committed), and last_end says"), "{wrong}");
        assert!(after(|h| h.transactions[1].end = None).contains("transaction p/2 ended as None"));
    }

    #[test]
    fn wrong_offsets_are_found() {
        let aborted = after(|h| _ = h.seen_offsets.insert(("p".to_owned(), 0, 20)));
        assert_eq!(aborted, "group p partition 0: 20 is committed by no transaction");
        let old = after(|h| _ = h.last_offsets.insert(("p".to_owned(), 0), 10));
        assert_eq!(old, "group p partition 0: 30 was committed, and at the end Some(10) is");
        assert!(after(|h| h.last_offsets.clear()).contains("at the end None is"));
    }
}
