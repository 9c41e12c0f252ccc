//! What a broker's answer means for a batch: written, refused, to be sent again, or to be split.

use std::time::Instant;

use super::batch::{Answer, Sending};
use super::{Accumulator, Outcomes, code, expired};
use crate::kafka::errors;
use crate::random::mix;
use crate::{ErrorKind, NodeId};

impl Accumulator {
    /// The broker wants no request before that time (KIP-219).
    pub(crate) fn handle_throttle(&mut self, node: NodeId, until: Instant) {
        self.schedule.nodes.entry(node).or_default().muted_until = Some(until);
    }

    /// Takes the batches of one request back with what came of each. `chance` spreads the pauses before they are sent
    /// again.
    pub(crate) fn handle_answers(
        &mut self,
        node: NodeId,
        answers: impl IntoIterator<Item = (Sending, Answer)>,
        now: Instant,
        chance: u64,
    ) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let mut idle = false;
        if let Some(node) = self.schedule.nodes.get_mut(&node) {
            node.in_flight = node.in_flight.saturating_sub(1);
            idle = node.in_flight == 0;
        }
        for (sending, answer) in answers {
            let at = sending.queue;
            self.handle_answer(sending, answer, now, mix(chance ^ at as u64), &mut outcomes);
            self.evaluate(at, now);
        }
        if idle {
            for at in self.schedule.take_lingering(node) {
                self.stop_lingering(at, now);
            }
        }
        self.release(&outcomes.resolved);
        for (builder, bytes) in std::mem::take(&mut outcomes.empty) {
            self.keep(builder, bytes);
        }
        outcomes
    }

    fn handle_answer(
        &mut self,
        sending: Sending,
        answer: Answer,
        now: Instant,
        chance: u64,
        outcomes: &mut Outcomes,
    ) {
        let Sending { queue, topic, partition, mut batch } = sending;
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let landed = queue.land(&batch);
        let error = match answer {
            Answer::Broker { code: 0 | code::DUPLICATE_SEQUENCE, written, .. } => {
                queue.handle_written(&batch);
                let size = batch.size;
                let (resolved, builder) = batch.written(written);
                outcomes.resolved.push(resolved);
                outcomes.empty.push((builder, size));
                return;
            }
            Answer::Broker { code, message, .. } => {
                let mut e = errors::broker(code, format!("produce to topic {topic} partition {partition}"));
                if let Some(message) = message {
                    e = e.with_source(message);
                }
                if errors::wants_refresh(code) {
                    outcomes.stale.push((topic.clone(), partition));
                }
                if landed.void {
                    // Whatever the broker says: the one before it was refused for good, and this one for the gap.
                    batch.last_error = Some(e);
                    queue.requeue(batch, true);
                    return;
                }
                match code {
                    code::OUT_OF_ORDER_SEQUENCE | code::UNKNOWN_PRODUCER_ID if !landed.oldest => {
                        // The one before it was refused and is about to come again.
                        batch.last_error = Some(e);
                        queue.requeue(batch, false);
                        return;
                    }
                    // The broker lost our sequence, or somebody has our id at a higher epoch (KIP-360).
                    code::OUT_OF_ORDER_SEQUENCE
                    | code::UNKNOWN_PRODUCER_ID
                    | code::INVALID_PRODUCER_EPOCH
                    | code::INVALID_PRODUCER_ID_MAPPING => {
                        if batch.unsure || self.settings.transactional || !self.settings.idempotent {
                            // An earlier attempt may have been written; a new number would write it twice.
                            outcomes.resolved.push(queue.give_up(batch, e));
                            return;
                        }
                        if !queue.is_current(&batch) {
                            // Its numbers were given up already.
                            queue.requeue(batch, false);
                            return;
                        }
                        tracing::warn!(%topic, %partition, error = %e, "beginning a new producer epoch");
                        batch.last_error = Some(e);
                        queue.not_before = Some(now + self.settings.pause(batch.attempts, chance));
                        queue.restart(batch);
                        return;
                    }
                    code::MESSAGE_TOO_LARGE | code::RECORD_LIST_TOO_LARGE => {
                        let e = e.context(format!(
                            "a batch of {} records and {} bytes",
                            batch.records, batch.size
                        ));
                        if batch.records < 2 || batch.unsure {
                            outcomes.resolved.push(queue.give_up(batch, e));
                            return;
                        }
                        if let Some(topic) = self.topics.get_mut(queue.topic_at) {
                            topic.limit = topic.limit.min(batch.size / 2);
                        }
                        tracing::debug!(%topic, %partition, error = %e, "sending it again in halves");
                        match batch.split() {
                            Ok([first, rest]) => {
                                self.unresolved += 1;
                                queue.requeue(rest, false);
                                queue.requeue(first, false);
                            }
                            Err(failed) => {
                                let (batch, why) = *failed;
                                outcomes.resolved.push(queue.give_up(batch, e.with_source(why.report())));
                            }
                        }
                        return;
                    }
                    // Perhaps written at the leader, and not known at the others: a broker that loses a partition while
                    // a batch waits for its replicas (Kafka's `DelayedProduce`) answers as one that never led it.
                    code::UNKNOWN_SERVER_ERROR
                    | code::UNKNOWN_TOPIC_OR_PARTITION
                    | code::NOT_LEADER
                    | code::REQUEST_TIMED_OUT
                    | code::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                    | code::STORAGE_ERROR => batch.unsure = true,
                    _ => {}
                }
                if !e.is_retryable() && !errors::wants_refresh(code) {
                    outcomes.resolved.push(queue.give_up(batch, e));
                    return;
                }
                e
            }
            Answer::Failed(e) => {
                outcomes.stale.push((topic.clone(), partition));
                batch.unsure |= e.is_ambiguous() && !landed.void;
                queue.handle_lost();
                // With the same sequence, sending again is safe whatever happened.
                if !e.is_retryable() && e.kind() != ErrorKind::Malformed {
                    outcomes.resolved.push(queue.give_up(batch, e));
                    return;
                }
                e
            }
        };
        tracing::debug!(%topic, %partition, attempt = batch.attempts, error = %error.report(), "sending again");
        batch.last_error = Some(error);
        if batch.deadline <= now {
            let error = expired(&topic, partition, &batch, self.settings.delivery_timeout);
            outcomes.resolved.push(queue.give_up(batch, error));
            return;
        }
        queue.not_before = Some(now + self.settings.pause(batch.attempts, chance));
        queue.requeue(batch, landed.void);
    }
}
