use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn event(json: &[u8]) -> EventEnvelope<'_> {
    EventEnvelope::parse(json).unwrap()
}

#[test]
fn an_event_that_python_wrote_is_read() {
    // json.dumps({"event_id": ..., "data": {"note": "Grüße \U0001F600\n"}}) with datetime.now(timezone.utc).isoformat()
    let json = br#"{"event_id": "0b7c", "event_type": "order.created", "occurred_at": "2026-11-24T21:51:00.123456+00:00", "data": {"note": "Gr\u00fc\u00dfe \ud83d\ude00\n", "total": 12.5, "tags": [], "gone": null}}"#;
    let e = event(json);
    assert_eq!((&*e.event_id, &*e.event_type), ("0b7c", "order.created"));
    assert_eq!(e.timestamp().unwrap(), Timestamp(1_795_557_060_123));
    #[derive(Deserialize, PartialEq, Debug)]
    struct Data<'a> {
        note: String,
        total: f64,
        #[serde(borrow)]
        tags: Vec<&'a str>,
        gone: Option<u8>,
    }
    let data: Data<'_> = e.data_as().unwrap();
    assert_eq!(data, Data { note: "Grüße 😀\n".into(), total: 12.5, tags: vec![], gone: None });
}

#[test]
fn text_is_borrowed_unless_it_holds_an_escape() {
    let json = br#"{"event_id":"a\u002fb","event_type":"plain","occurred_at":"x","data":1}"#;
    let e = event(json);
    assert!(matches!(e.event_id, Cow::Owned(ref text) if text == "a/b"));
    assert!(matches!(e.event_type, Cow::Borrowed("plain")));
    assert!(json.as_ptr_range().contains(&e.data.get().as_ptr()));
}

#[test]
fn field_names_may_be_escaped_and_unknown_fields_hold_anything() {
    let json = br#" {"x":{"type":[1,{"data":2}]},"\u0074ype":"email.send","data" : [1, 2] ,"y":"\ud800","z":1e999} "#;
    let t = TaskEnvelope::parse(json).unwrap();
    assert_eq!((&*t.task_type, t.data.get()), ("email.send", "[1, 2]"));
}

#[test]
fn the_last_of_two_equal_fields_counts() {
    let t = TaskEnvelope::parse(br#"{"type":1,"data":1,"type":"a","type":"b","data":2}"#).unwrap();
    assert_eq!((&*t.task_type, t.data.get()), ("b", "2"));
}

#[test]
fn data_may_be_any_json_value_and_null_is_a_value() {
    for data in ["null", "[]", "\"text\"", "0", "{}"] {
        let json = format!(r#"{{"type":"t","data":{data}}}"#);
        assert_eq!(TaskEnvelope::parse(json.as_bytes()).unwrap().data.get(), data);
    }
}

#[test]
fn what_is_wrong_is_told_apart() {
    use EnvelopeError::{MissingField, NotUtf8, WrongType};
    let cases: [(&[u8], EnvelopeError); 9] = [
        (b"{\"type\":\"\xff\",\"data\":1}", NotUtf8 { at: 9 }),
        (br#"{"type":"t"}"#, MissingField("data")),
        (br#"{"data":{}}"#, MissingField("type")),
        (br#"{}"#, MissingField("type")),
        (br#"{"type":null,"data":{}}"#, WrongType("type")),
        (br#"{"type":{"a":1},"data":{}}"#, WrongType("type")),
        (br#"{"type":"\ud800","data":{}}"#, WrongType("type")),
        (br#"[{"type":"t","data":{}}]"#, WrongType("envelope")),
        (b"17", WrongType("envelope")),
    ];
    for (json, expected) in cases {
        assert_eq!(TaskEnvelope::parse(json).unwrap_err(), expected, "{}", String::from_utf8_lossy(json));
    }
    let e = EventEnvelope::parse(br#"{"event_id":"1","event_type":"t","data":{}}"#).unwrap_err();
    assert_eq!(e.to_string(), "field `occurred_at` is missing");
}

#[test]
fn wrong_json_is_named_with_its_line_and_column() {
    let cases: [(&str, usize, usize); 9] = [
        ("", 1, 0),
        ("not json", 1, 2),
        ("{\"type\":\"t\",\n \"data\":}", 2, 9),
        ("{\"type\":\"t\",\"data\":NaN}", 1, 20),
        ("{\"type\":\"t\",\"data\":{\"a\":1}", 1, 26),
        ("{\"type\":\"t\",\"data\":1} x", 1, 23),
        ("{\"type\":\"a\nb\",\"data\":1}", 1, 10),
        ("[1,", 1, 3),
        ("{'type':1}", 1, 2),
    ];
    for (json, line, column) in cases {
        match TaskEnvelope::parse(json.as_bytes()) {
            Err(EnvelopeError::NotJson { line: l, column: c, reason }) => {
                assert_eq!((l, c), (line, column), "{json:?}: {reason}");
                assert!(!reason.contains(" at line "), "{reason}");
            }
            other => panic!("{json:?}: {other:?}"),
        }
    }
    let e = Error::from(TaskEnvelope::parse(b"{").unwrap_err());
    assert_eq!(e.kind(), ErrorKind::Malformed);
    assert_eq!(e.message(), "not JSON at line 1 column 1: EOF while parsing an object");
}

#[test]
fn nesting_as_deep_as_the_input_is_no_stack_overflow() {
    let deep = 1_000_000;
    let json = format!(r#"{{"type":"t","data":{}{}}}"#, "[".repeat(deep), "]".repeat(deep));
    assert_eq!(TaskEnvelope::parse(json.as_bytes()).unwrap().data.get().len(), 2 * deep);
    let json = format!(r#"{{"type":"t","x":{}{},"data":1}}"#, "[".repeat(deep), "]".repeat(deep));
    assert!(TaskEnvelope::parse(json.as_bytes()).is_ok());
    assert!(TaskEnvelope::parse("[".repeat(deep).as_bytes()).is_err());
}

#[test]
fn a_handler_learns_what_its_type_missed() {
    #[derive(Deserialize, Debug)]
    struct Email {
        #[serde(rename = "to")]
        _to: String,
    }
    let t = TaskEnvelope::parse(br#"{"type":"email.send","data":{"cc":1}}"#).unwrap();
    let e = t.data_as::<Email>().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
    assert!(e.report().contains("missing field `to` at line 1 column 8"), "{}", e.report());
}

#[test]
fn times_are_read_in_every_form_that_python_writes() {
    let cases = [
        ("2026-11-24T21:51:00+00:00", 1_795_557_060_000), // isoformat, aware, no microseconds
        ("2026-11-24T21:51:00.123456+00:00", 1_795_557_060_123),
        ("2026-11-24T21:51:00.123456", 1_795_557_060_123), // naive
        ("2026-11-24T21:51:00", 1_795_557_060_000),
        ("2026-11-24 21:51:00.000999", 1_795_557_060_000), // str(datetime)
        ("2026-11-24 21:51:00+00:00", 1_795_557_060_000),
        ("2026-11-24T21:51:00Z", 1_795_557_060_000), // strftime("%Y-%m-%dT%H:%M:%SZ"), and everybody else
        ("2026-11-24T21:51:00.5+0000", 1_795_557_060_500), // strftime("%z")
        ("2026-11-25T03:21:00+05:30", 1_795_557_060_000),
        ("2026-11-24T13:51:00-08:00", 1_795_557_060_000),
        ("2026-11-24T13:51:00-08", 1_795_557_060_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.998Z", -2),
        ("0001-01-01T00:00:00", -62_135_596_800_000),
        ("9999-12-31T23:59:59.999999", 253_402_300_799_999),
    ];
    for (text, millis) in cases {
        assert_eq!(parse_iso8601(text).unwrap(), Timestamp(millis), "{text}");
    }
}

#[test]
fn what_is_no_time_is_refused_and_quoted_in_part() {
    for text in ["", "now", "2026-11-24", "2026-13-01T00:00:00Z", "2026-11-24T25:00:00Z", "1795557060"] {
        let e = parse_iso8601(text).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.message().starts_with(&format!("{text:?}")), "{e}");
    }
    assert!(parse_iso8601(&"é".repeat(100_000)).unwrap_err().message().len() < 300);
}

#[test]
fn a_time_is_written_so_that_any_reader_takes_it() {
    assert_eq!(format_iso8601(Timestamp(1_795_557_060_123)).unwrap(), "2026-11-24T21:51:00.123+00:00");
    assert_eq!(format_iso8601(Timestamp(0)).unwrap(), "1970-01-01T00:00:00.000+00:00");
    for far in [i64::MIN, i64::MAX, 253_402_300_800_000] {
        assert_eq!(format_iso8601(Timestamp(far)).unwrap_err().kind(), ErrorKind::Config);
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn an_event_comes_back_as_it_was_encoded(
        id in any::<String>(), kind in any::<String>(), at in any::<String>(), data in json_value()
    ) {
        let raw = serde_json::value::to_raw_value(&data).unwrap();
        let json = EventEnvelope {
            event_id: id.as_str().into(), event_type: kind.as_str().into(), occurred_at: at.as_str().into(), data: &raw,
        }.encode();
        // An independent reader agrees,
        let other: serde_json::Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(other, serde_json::json!({
            "event_id": id, "event_type": kind, "occurred_at": at, "data": data
        }));
        // and so do we, whatever the whitespace.
        let pretty = serde_json::to_vec_pretty(&serde_json::from_slice::<serde_json::Value>(&json).unwrap()).unwrap();
        for form in [&json[..], &pretty[..]] {
            let e = EventEnvelope::parse(form).unwrap();
            prop_assert_eq!((&*e.event_id, &*e.event_type, &*e.occurred_at), (&*id, &*kind, &*at));
            prop_assert_eq!(e.data_as::<serde_json::Value>().unwrap(), data.clone());
        }
    }

    #[test]
    fn a_task_comes_back_as_it_was_encoded(kind in any::<String>(), data in json_value()) {
        let raw = serde_json::value::to_raw_value(&data).unwrap();
        let json = TaskEnvelope { task_type: kind.as_str().into(), data: &raw }.encode();
        let t = TaskEnvelope::parse(&json).unwrap();
        prop_assert_eq!(&*t.task_type, &*kind);
        prop_assert_eq!(t.data.get(), raw.get());
    }

    #[test]
    fn a_time_comes_back_as_it_was_written(millis in -62_135_596_800_000_i64..253_402_300_800_000) {
        let text = format_iso8601(Timestamp(millis)).unwrap();
        prop_assert_eq!(parse_iso8601(&text).unwrap(), Timestamp(millis));
    }

    #[test]
    fn arbitrary_bytes_are_an_envelope_or_an_error(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}:,\"a-z0-9\\\\ ]{0,40}") {
        for input in [&bytes[..], text.as_bytes()] {
            let _ = EventEnvelope::parse(input);
            let _ = TaskEnvelope::parse(input);
        }
        let _ = parse_iso8601(&text);
    }

    /// The verdict "not JSON" is serde_json's own: the two policies never swap.
    #[test]
    fn not_json_is_said_of_what_is_not_json_and_of_nothing_else(text in "\\PC{0,8}|[\\[\\]{}:,\"td1 ]{0,12}") {
        let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let verdict = TaskEnvelope::parse(text.as_bytes());
        prop_assert_eq!(!is_json, matches!(verdict, Err(EnvelopeError::NotJson { .. })), "{:?}", verdict);
    }
}
