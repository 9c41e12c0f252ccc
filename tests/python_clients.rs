//! Both ways with the Python clients that people come from: what aiokafka and aio-pika write, muslin reads, and the reverse.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test waits for another process, and fails by a panic"
)]

mod common;

use common::{json_lines, muslin, python, succeed, unique};
use serde_json::{Value, json};

#[test]
fn aiokafka_reads_the_events_that_muslin_published() {
    let event_type = unique("order.created");
    let data: String = (0..20).map(|n| format!("{{\"order\":{n},\"name\":\"Ü{n}\"}}\n")).collect();
    let ids = succeed(muslin().args(["event", "publish", &event_type, "--key", "order-42", "-"]), &data);
    let lone = succeed(muslin().args(["event", "publish", &event_type, "--data", r#"{"order":20}"#]), "");
    let ids: Vec<&str> = ids.lines().chain(lone.lines()).collect();

    let records =
        json_lines(&succeed(python("kafka_read.py").arg(format!("events.{event_type}")).arg("21"), ""));
    let mut by_order: Vec<(i64, Value, Value)> = records
        .iter()
        .map(|r| {
            let envelope: Value = serde_json::from_str(r["value"].as_str().unwrap()).unwrap();
            (envelope["data"]["order"].as_i64().unwrap(), r["key"].clone(), envelope)
        })
        .collect();
    by_order.sort_by_key(|(order, ..)| *order);
    assert_eq!(by_order.len(), 21);
    for (n, (order, key, envelope)) in by_order.iter().enumerate() {
        assert_eq!(*order, n as i64);
        assert_eq!(*key, if n < 20 { json!("order-42") } else { Value::Null });
        assert_eq!(envelope["event_type"], json!(event_type));
        assert!(ids.iter().any(|line| line.contains(envelope["event_id"].as_str().unwrap())), "{ids:?}");
        let at = envelope["occurred_at"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{at}");
    }
    assert_eq!(by_order[3].2["data"]["name"], json!("Ü3"));
}

#[test]
fn muslin_reads_what_aiokafka_wrote_with_every_codec() {
    let at = recent();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = unique(&format!("aiokafka-{codec}"));
        let long = "abcdefghij".repeat(2000);
        let wanted = [
            json!({"key": "k", "value": "v", "headers": [], "timestamp": at}),
            json!({"key": null, "value": "no key", "headers": [["a", "1"], ["a", "2"], ["b", null], ["a", ""]], "timestamp": at + 1}),
            json!({"key": "tombstone", "value": null, "headers": [], "timestamp": at + 2}),
            json!({"key": "", "value": "", "headers": [["", "empty name"]], "timestamp": at + 3}),
            json!({"key": "long", "value": long, "headers": [["ü", "ß"]], "timestamp": at - 60_000}),
        ];
        let lines: String = wanted.iter().map(|r| format!("{r}\n")).collect();
        succeed(python("kafka_write.py").arg(&topic).arg(codec), &lines);
        let read =
            json_lines(&succeed(muslin().args(["consume", "-J", "-t", &topic, "-o", "beginning", "-e"]), ""));
        let records: Vec<&Value> = read.iter().filter(|r| r.get("offset").is_some()).collect();
        assert_eq!(records.len(), wanted.len(), "{codec}");
        for (n, (read, wanted)) in records.iter().zip(&wanted).enumerate() {
            assert_eq!(read["offset"], json!(n), "{codec}");
            for field in ["key", "value", "headers", "timestamp"] {
                assert_eq!(read[field], wanted[field], "{codec}, record {n}, {field}");
            }
        }
    }
}

#[test]
fn aiokafka_reads_what_muslin_produced_with_every_codec() {
    let at = recent();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = unique(&format!("muslin-{codec}"));
        let wanted = [
            json!({"key": "k", "value": "v", "headers": [["a", "1"], ["a", "2"], ["b", null]], "partition": 0, "timestamp": at}),
            json!({"key": null, "value": "x".repeat(5000), "headers": [], "partition": 0, "timestamp": at + 1}),
            json!({"key": "tombstone", "value": null, "headers": [], "partition": 0, "timestamp": at + 2}),
        ];
        let lines: String = wanted.iter().map(|r| format!("{r}\n")).collect();
        succeed(muslin().args(["produce", "-J", "-t", &topic, "-z", codec]), &lines);
        let read = json_lines(&succeed(python("kafka_read.py").arg(&topic).arg("3"), ""));
        for (read, wanted) in read.iter().zip(&wanted) {
            for field in ["key", "value", "headers", "timestamp"] {
                assert_eq!(read[field], wanted[field], "{codec}, {field}");
            }
        }
        assert_eq!(read.len(), 3);
    }
}

#[test]
fn aio_pika_reads_the_tasks_that_muslin_put() {
    let queue = unique("tasks");
    succeed(muslin().args(["enqueue", "-q", &queue, "email.send", "--data", r#"{"to":"a@b.c"}"#]), "");
    succeed(muslin().args(["publish", "-q", &queue, "-H", "origin=test"]), "plain text\n");
    let read = json_lines(&succeed(python("amqp_read.py").arg(&queue).arg("2"), ""));
    let task: Value = serde_json::from_str(read[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(task, json!({"type": "email.send", "data": {"to": "a@b.c"}}));
    assert_eq!(read[1]["body"], json!("plain text"));
    assert_eq!(read[1]["headers"]["origin"], json!("test"));
    for message in &read {
        assert_eq!(message["delivery_mode"], json!(2));
        assert_eq!(message["exchange"], json!(""));
        assert_eq!(message["routing_key"], json!(queue));
    }
    assert!(read[0]["message_id"].as_str().is_some_and(|id| !id.is_empty()));
}

#[test]
fn muslin_reads_and_works_what_aio_pika_put_into_a_durable_queue() {
    let queue = unique("aio-pika");
    let bodies =
        ["{\"type\":\"a\",\"data\":{\"n\":1}}", "{\"data\": {\"n\": 2}, \"type\": \"a\", \"extra\": null}"];
    succeed(python("amqp_write.py").arg(&queue), &bodies.join("\n"));
    let read = json_lines(&succeed(muslin().args(["get", "-J", "-q", &queue, "-e", "--no-ack"]), ""));
    let read: Vec<&Value> = read.iter().filter(|m| m.get("body").is_some()).collect();
    assert_eq!(read.len(), 2);
    for (n, message) in read.iter().enumerate() {
        assert_eq!(message["body"], json!(bodies[n]));
        assert_eq!(message["message_id"], json!(format!("m{n}")));
        assert_eq!(message["delivery_mode"], json!(2));
        assert_eq!(
            message["headers"],
            json!({"text": "ü", "number": -70000, "flag": true, "nothing": null, "list": [1, "two"], "table": {"a": 1.5}})
        );
    }

    // `--no-ack` left them: a worker now takes both. It stops by a signal, as a service is stopped.
    let log = tempfile::NamedTempFile::new().unwrap();
    let worker = muslin()
        .args(["work", "-q", &queue, "--exec", &format!("cat >> {0}; echo >> {0}", log.path().display())])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut worker = Guard(worker);
    let mut text = String::new();
    for _ in 0..300 {
        text = std::fs::read_to_string(log.path()).unwrap();
        if text.contains("\"n\":1") && text.replace(' ', "").contains("\"n\":2") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(text.contains("\"n\":1") && text.replace(' ', "").contains("\"n\":2"), "worked: {text}");
    assert!(std::process::Command::new("kill").arg(worker.0.id().to_string()).status().unwrap().success());
    assert_eq!(worker.0.wait().unwrap().code(), Some(130));
    let left = json_lines(&succeed(muslin().args(["get", "-J", "-q", &queue, "-e"]), ""));
    assert!(left.iter().all(|m| m.get("body").is_none()), "left in the queue: {left:?}");
}

/// A time that the broker's retention does not reach: it deletes records by the time that they carry.
fn recent() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() - 3_600_000
}

/// Kills the child if the test ends before it does.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
