//! Class `tx` (AMQP 0-9-1 section 1.9): publishes and settlements that count from the commit on.
//!
//! As with RabbitMQ a commit is not atomic across queues; here it is all the same, since nothing can come between. A publish
//! that a full queue refuses ends the channel (406 partial tx completion).

use super::{Cx, Failure, basic};
use crate::embedded::amqp::broker::Refusal;
use crate::embedded::amqp::channel::{Channel, Transaction};
use crate::embedded::amqp::wire::method::tx::{CommitOk, RollbackOk, SelectOk};

pub(super) fn select(cx: &mut Cx<'_>, channel: &mut Channel) -> Result<(), Failure> {
    if channel.confirms.is_some() {
        return Err(Refusal::precondition_failed("cannot switch from confirm to tx mode").into());
    }
    channel.transaction.get_or_insert_with(Transaction::default);
    cx.link.send(channel.number, &SelectOk {});
    Ok(())
}

/// What was done since the last commit or rollback; the next transaction begins.
fn take(cx: &mut Cx<'_>, channel: &mut Channel) -> Result<Transaction, Failure> {
    let Some(tx) = &mut channel.transaction else {
        return Err(Refusal::precondition_failed("channel is not transactional").into());
    };
    let tx = std::mem::take(tx);
    cx.core.unfinished = cx.core.unfinished.saturating_sub(tx.bytes);
    Ok(tx)
}

pub(super) fn commit(cx: &mut Cx<'_>, channel: &mut Channel) -> Result<(), Failure> {
    let tx = take(cx, channel)?;
    let mut partial = false;
    let mut failed = None;
    for (message, mandatory) in tx.publishes {
        match basic::put(cx, channel, message, mandatory) {
            Ok(accepted) => partial |= !accepted,
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
    }
    for (how, settled) in tx.settled {
        let settled = settled.into_iter().map(|(_, unacked)| unacked);
        channel.settle(&mut cx.core.broker, settled, how, cx.link.congested, cx.now);
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    if partial {
        return Err(Refusal::precondition_failed("partial tx completion").into());
    }
    cx.link.send(channel.number, &CommitOk {});
    Ok(())
}

pub(super) fn rollback(cx: &mut Cx<'_>, channel: &mut Channel) -> Result<(), Failure> {
    let tx = take(cx, channel)?;
    // What was settled is unsettled again, and stays with the channel.
    channel.unsettled.put_back(tx.settled.into_iter().flat_map(|(_, settled)| settled).collect());
    cx.link.send(channel.number, &RollbackOk {});
    Ok(())
}
