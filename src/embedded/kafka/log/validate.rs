//! What a producer's records must be, as `LogValidator` and `ProduceRequest.validateRecords` of Apache Kafka 4.3.
//!
//! The batch's frame, checksum and header are always checked. The records themselves are read only where the topic's
//! rules ask something of each (a compacted topic wants keys; a limit on old timestamps): a batch whose checksum is
//! right but whose records are damaged is taken, where the real broker refuses it with CORRUPT_MESSAGE or
//! INVALID_RECORD. The largest timestamp is the header's; the real broker computes it again from the records.

use bytes::Bytes;

use super::{Refusal, batch};
use crate::codec::compression::Compression;
use crate::codec::record_batch::{BatchList, BatchView};
use crate::embedded::kafka::api::Code;
use crate::{ErrorKind, Timestamp};

/// What a topic asks of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `max.message.bytes`: the largest batch.
    pub(crate) max_message_bytes: u64,
    /// `segment.bytes`: no batch can be larger.
    pub(crate) segment_bytes: u64,
    /// `message.timestamp.type=LogAppendTime`.
    pub(crate) append_time: bool,
    /// `message.timestamp.before.max.ms`: how much older than the broker's clock a timestamp may be.
    pub(crate) before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how much newer.
    pub(crate) after_max_ms: i64,
    /// `cleanup.policy` has `compact`: a record needs a key.
    pub(crate) compacted: bool,
    /// May zstd be used (Produce from version 7)?
    pub(crate) zstd: bool,
    /// Must a producer that is not known start at sequence 0 (transactions of version 2)?
    pub(crate) starts_at_zero: bool,
}

/// The one batch in `records`.
pub(super) fn check(records: &Bytes, rules: &Rules, now: Timestamp) -> Result<BatchView, Refusal> {
    let invalid = |why: &str| Refusal::new(Code::InvalidRecord, why);
    let whole = records.first_chunk::<17>().copied();
    match whole.map(|head| head[16]) {
        Some(2) => {}
        Some(_) => {
            return Err(invalid(
                "Produce requests with version 3 or higher are only allowed to contain record batches with magic version 2",
            ));
        }
        None => {
            return Err(invalid(
                "Produce requests with version 3 or higher must have at least one record batch per partition",
            ));
        }
    }
    let mut list = BatchList::new(records.clone());
    let view = match list.next() {
        Some(Ok(view)) => view,
        Some(Err(e)) => {
            let code = match e.kind() {
                ErrorKind::Unsupported => Code::UnsupportedCompressionType,
                _ => Code::CorruptMessage,
            };
            return Err(Refusal::new(code, e.to_string()));
        }
        None => {
            return Err(invalid(
                "Produce requests with version 3 or higher must have at least one record batch per partition",
            ));
        }
    };
    if list.next().is_some() || list.truncated().is_some() {
        return Err(invalid(
            "Produce requests with version 3 or higher are only allowed to contain exactly one record batch per partition",
        ));
    }
    if view.compression() == Compression::Zstd && !rules.zstd {
        return Err(Refusal::new(
            Code::UnsupportedCompressionType,
            "Produce requests with version < 7 are not allowed to use ZStandard compression",
        ));
    }
    let size = view.as_bytes().len() as u64;
    if size > rules.max_message_bytes {
        return Err(Refusal::new(
            Code::MessageTooLarge,
            format!(
                "The record batch size is {size} bytes which exceeds the maximum configured value of {}.",
                rules.max_message_bytes
            ),
        ));
    }
    if size > rules.segment_bytes {
        return Err(Refusal::new(
            Code::RecordListTooLarge,
            format!(
                "Message batch size is {size} bytes in append, which exceeds the maximum configured segment size of {}.",
                rules.segment_bytes
            ),
        ));
    }
    if view.base_offset().0 != 0 {
        return Err(invalid(&format!(
            "The baseOffset of the record batch in the append should be 0, but it is {}",
            view.base_offset()
        )));
    }
    let count = view.last_offset().0 + 1;
    if view.record_count() == 0 || i64::from(view.record_count()) != count {
        return Err(invalid(&format!(
            "Inconsistent batch offset range: {count} offsets for {} records",
            view.record_count()
        )));
    }
    if view.is_control() {
        return Err(invalid("Clients are not allowed to write control records"));
    }
    if view.producer_id().0 >= 0 && view.base_sequence().0 < 0 {
        return Err(invalid(&format!(
            "Invalid sequence number {} in record batch with producerId {}",
            view.base_sequence(),
            view.producer_id()
        )));
    }
    if view.is_transactional() && view.producer_id().0 < 0 {
        return Err(invalid("A transactional record batch needs a producer id"));
    }
    check_records(&view, rules, now)?;
    Ok(view)
}

/// What is asked of each record.
fn check_records(view: &BatchView, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
    let times = !rules.append_time;
    let newest = now.0.saturating_add(rules.after_max_ms);
    let oldest = now.0.saturating_sub(rules.before_max_ms);
    let too_new = times && view.max_timestamp().0 > newest;
    // Only a limit that can be broken is worth reading the records for.
    let may_be_old = times && rules.before_max_ms != i64::MAX;
    if !(rules.compacted || too_new || may_be_old) {
        return Ok(());
    }
    let damaged = |e: crate::Error| Refusal::new(Code::CorruptMessage, e.to_string());
    let mut bad_time = Vec::new();
    let mut no_key = Vec::new();
    for (index, record) in (0..).zip(&view.records(batch::READ_LIMIT).map_err(damaged)?) {
        let record = record.map_err(damaged)?;
        let time = record.timestamp().0;
        if rules.compacted && record.key().is_none() {
            no_key.push((index, "Compacted topic cannot accept message without key.".to_owned()));
        }
        if times && time != -1 && !(oldest..=newest).contains(&time) {
            bad_time.push((
                index,
                format!("Timestamp {time} of message with offset {index} is out of range. The timestamp should be within [{oldest}, {newest}]"),
            ));
        }
    }
    let (code, records) = match (no_key.is_empty(), bad_time.is_empty()) {
        (false, _) => (Code::InvalidRecord, no_key),
        (true, false) => (Code::InvalidTimestamp, bad_time),
        (true, true) => return Ok(()),
    };
    let message = "One or more records have been rejected due to ";
    let message = format!("{message}{} record errors in total", records.len());
    Err(Refusal { code, message, records })
}
