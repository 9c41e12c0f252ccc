//! Any bytes as an event and as a task. serde_json's own reader agrees on what is JSON and on what stands in it, and an
//! envelope that was read is written so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muslin::codec::envelope::{EnvelopeError, EventEnvelope, TaskEnvelope, format_iso8601, parse_iso8601};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(time) = parse_iso8601(text)
        && let Ok(written) = format_iso8601(time)
    {
        assert_eq!(parse_iso8601(&written).unwrap(), time);
    }
    let event = EventEnvelope::parse(data);
    let task = TaskEnvelope::parse(data);
    for error in [event.as_ref().err(), task.as_ref().err()].into_iter().flatten() {
        assert!(!error.to_string().is_empty());
        let is_utf8 = std::str::from_utf8(data).is_ok();
        assert_eq!(is_utf8, !matches!(error, EnvelopeError::NotUtf8 { .. }));
    }
    // Its reader refuses lone surrogates, huge numbers and nesting beyond 128, which stand unread in ours.
    let value = serde_json::from_slice::<Value>(data);
    if let Ok(value) = &value {
        assert!(!matches!(event, Err(EnvelopeError::NotJson { .. } | EnvelopeError::NotUtf8 { .. })));
        assert_eq!(value.is_object(), !matches!(task, Err(EnvelopeError::WrongType("envelope"))));
    }
    if let Ok(event) = event {
        if let Ok(value) = &value {
            assert_eq!(value["event_id"], *event.event_id);
            assert_eq!(value["event_type"], *event.event_type);
            assert_eq!(value["occurred_at"], *event.occurred_at);
            assert_eq!(value["data"], event.data_as::<Value>().unwrap());
        }
        let _ = event.timestamp();
        let written = event.encode();
        let again = EventEnvelope::parse(&written).unwrap();
        assert_eq!(
            (again.event_id, again.event_type, again.occurred_at),
            (event.event_id, event.event_type, event.occurred_at)
        );
        assert_eq!(again.data.get(), event.data.get());
    }
    if let Ok(task) = task {
        if let Ok(value) = &value {
            assert_eq!(value["type"], *task.task_type);
            assert_eq!(value["data"], task.data_as::<Value>().unwrap());
        }
        let written = task.encode();
        let again = TaskEnvelope::parse(&written).unwrap();
        assert_eq!((&again.task_type, again.data.get()), (&task.task_type, task.data.get()));
    }
});
