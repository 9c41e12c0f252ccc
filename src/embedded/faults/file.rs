//! Rules from JSON, for `muslin serve --faults FILE`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Faults;
use super::action::Action;
use super::names::error_code;
use super::rule::Rule;
use crate::{Error, ErrorKind, NodeId, Result};

const FIELDS: &[&str] = &[
    "request", "do", "name", "client", "broker", "topic", "queue", "group", "nth", "every", "first",
    "chance", "after_ms", "until_ms",
];
const ACTIONS: &str = "error, error_after, delay_ms, drop_answer, drop_request, cut_answer, hold, answer_twice, stall_ms, kill, \
                       restart_ms, isolate_ms, move_leader, move_coordinator, old_leaders, expire_session, close_channel, \
                       close_connection, block, cancel_consumers or nack";

fn bad(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, what.to_string())
}

/// A value that is not what it should be.
fn wrong(field: &str, value: &Value, expected: &str) -> Error {
    let mut shown = value.to_string();
    if shown.chars().count() > 80 {
        shown = shown.chars().take(77).chain("...".chars()).collect();
    }
    bad(format!("`{field}` is {shown}; expected {expected}"))
}

/// Reads a whole document, or a rule a line.
pub(super) fn read(text: &str) -> Result<Faults> {
    let lines = || text.lines().enumerate().filter(|(_, l)| !matches!(l.trim().as_bytes(), [] | [b'#', ..]));
    let by_line = lines().count() > 1 && lines().all(|(_, l)| serde_json::from_str::<Value>(l).is_ok());
    if by_line {
        let mut faults = Faults::new(0);
        for (number, line) in lines() {
            let value: Value =
                serde_json::from_str(line).map_err(|e| bad(format!("line {}: {e}", number + 1)))?;
            take(&mut faults, &value).map_err(|e| e.context(format!("line {}", number + 1)))?;
        }
        return Ok(faults);
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|e| bad(format!("no JSON document, and not one JSON object on each line: {e}")))?;
    let mut faults = Faults::new(0);
    if let Value::Array(rules) = &value {
        add_all(&mut faults, rules)?;
    } else {
        take(&mut faults, &value)?;
    }
    Ok(faults)
}

fn add_all(faults: &mut Faults, rules: &[Value]) -> Result<()> {
    for (i, value) in rules.iter().enumerate() {
        let added = rule(value).and_then(|rule| faults.add(rule));
        added.map_err(|e| e.context(format!("rule {}", i + 1)))?;
    }
    Ok(())
}

/// A rule, or the document around rules.
fn take(faults: &mut Faults, value: &Value) -> Result<()> {
    let Value::Object(map) = value else {
        return Err(wrong("the document", value, "an object with `rules`, or with `request` and `do`"));
    };
    if !map.contains_key("seed") && !map.contains_key("rules") {
        return faults.add(rule(value)?);
    }
    for (field, value) in map {
        match field.as_str() {
            "seed" => {
                faults.seed = value.as_u64().ok_or_else(|| wrong(field, value, "a whole number from 0"))?
            }
            "rules" => {
                let rules = value.as_array().ok_or_else(|| wrong(field, value, "a list of rules"))?;
                add_all(faults, rules)?;
            }
            _ => {
                return Err(bad(format!(
                    "`{field}` is not known beside `rules`; expected `seed` or `rules`"
                )));
            }
        }
    }
    Ok(())
}

fn rule(value: &Value) -> Result<Rule> {
    let Value::Object(map) = value else {
        return Err(wrong("the rule", value, "an object with `request` and `do`"));
    };
    if let Some(unknown) = map.keys().find(|k| !FIELDS.contains(&k.as_str())) {
        return Err(bad(format!("`{unknown}` is not known; expected one of {}", FIELDS.join(", "))));
    }
    let requests = match map.get("request") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) && !names.is_empty() => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Some(other) => return Err(wrong("request", other, "a name such as \"Produce\", or a list of names")),
        None => {
            return Err(bad(
                "`request` is missing; expected a name such as \"Produce\" or \"basic.publish\"",
            ));
        }
    };
    let action = match map.get("do") {
        Some(value) => action(value)?,
        None => return Err(bad(format!("`do` is missing; expected {ACTIONS}"))),
    };
    let mut rule = Rule::new(&requests, action)?;
    let places: Vec<&str> =
        ["topic", "queue", "group"].into_iter().filter(|k| map.contains_key(*k)).collect();
    if let [a, b, ..] = places.as_slice() {
        return Err(bad(format!("`{a}` and `{b}` are both given; a rule has one of topic, queue, group")));
    }
    let firing: Vec<&str> =
        ["nth", "every", "first", "chance"].into_iter().filter(|k| map.contains_key(*k)).collect();
    if let [a, b, ..] = firing.as_slice() {
        return Err(bad(format!(
            "`{a}` and `{b}` are both given; a rule has one of nth, every, first, chance"
        )));
    }
    if let Some(name) = text(map, "name")? {
        rule = rule.name(name);
    }
    if let Some(client) = text(map, "client")? {
        rule = rule.client(client);
    }
    for field in places {
        if let Some(place) = text(map, field)? {
            rule = rule.topic(place);
        }
    }
    if let Some(value) = map.get("broker") {
        rule = rule.broker(node("broker", value)?);
    }
    if let Some(n) = count(map, "nth")? {
        rule = rule.nth(n);
    }
    if let Some(n) = count(map, "every")? {
        rule = rule.every(n);
    }
    if let Some(n) = count(map, "first")? {
        rule = rule.first(n);
    }
    if let Some(value) = map.get("chance") {
        let p = value.as_f64().ok_or_else(|| wrong("chance", value, "a number from 0 to 1"))?;
        rule = rule.chance(p)?;
    }
    if let Some(value) = map.get("after_ms") {
        rule = rule.after(millis("after_ms", value)?);
    }
    if let Some(value) = map.get("until_ms") {
        rule = rule.until(millis("until_ms", value)?);
    }
    Ok(rule)
}

fn action(value: &Value) -> Result<Action> {
    let none = Value::Null;
    let (name, value) = match value {
        Value::String(name) => (name.as_str(), &none),
        Value::Object(map) => match map.iter().next() {
            Some((name, value)) if map.len() == 1 => (name.as_str(), value),
            _ => return Err(wrong("do", value, "one action, as \"drop_answer\" or {\"delay_ms\": 200}")),
        },
        other => return Err(wrong("do", other, "an action, as \"drop_answer\" or {\"delay_ms\": 200}")),
    };
    // Those that take nothing are written alone, or with `true`.
    let plain = |action: Action| match value {
        Value::Null | Value::Bool(true) => Ok(action),
        other => Err(wrong(name, other, "no value: write the action's name alone")),
    };
    match name {
        "error" => Ok(Action::Error(code(name, value)?)),
        "error_after" => Ok(Action::ErrorAfter(code(name, value)?)),
        "delay_ms" => Ok(Action::Delay(millis(name, value)?)),
        "drop_answer" => plain(Action::DropAnswer),
        "drop_request" => plain(Action::DropRequest),
        "cut_answer" => {
            let at = value.as_u64().and_then(|n| usize::try_from(n).ok());
            Ok(Action::CutAnswer(at.ok_or_else(|| wrong(name, value, "a number of bytes from 0"))?))
        }
        "hold" => match value {
            Value::Null | Value::Bool(true) => Ok(Action::Hold(String::new())),
            Value::String(under) => Ok(Action::Hold(under.clone())),
            other => Err(wrong(name, other, "the name under which it is released")),
        },
        "answer_twice" => plain(Action::AnswerTwice),
        "stall_ms" => Ok(Action::Stall(millis(name, value)?)),
        "kill" => plain(Action::Kill),
        "restart_ms" => Ok(Action::Restart(millis(name, value)?)),
        "isolate_ms" => Ok(Action::Isolate(millis(name, value)?)),
        "move_leader" => Ok(Action::MoveLeader(target(name, value)?)),
        "move_coordinator" => Ok(Action::MoveCoordinator(target(name, value)?)),
        "old_leaders" => plain(Action::OldLeaders),
        "expire_session" => plain(Action::ExpireSession),
        "close_channel" => reply(name, value).map(|(code, text)| Action::CloseChannel(code, text)),
        "close_connection" => reply(name, value).map(|(code, text)| Action::CloseConnection(code, text)),
        "block" => {
            let map =
                value.as_object().ok_or_else(|| wrong(name, value, "{\"reason\": ..., \"for_ms\": ...}"))?;
            only(name, map, &["reason", "for_ms"])?;
            let time =
                map.get("for_ms").ok_or_else(|| bad("`block` lacks `for_ms`, the time in milliseconds"))?;
            let reason = text(map, "reason")?.unwrap_or_else(|| "low on memory".to_owned());
            Ok(Action::Block(reason, millis("for_ms", time)?))
        }
        "cancel_consumers" => plain(Action::CancelConsumers),
        "nack" => plain(Action::Nack),
        unknown => Err(bad(format!("the action {unknown:?} is not known; expected {ACTIONS}"))),
    }
}

fn only(name: &str, map: &Map<String, Value>, fields: &[&str]) -> Result<()> {
    match map.keys().find(|k| !fields.contains(&k.as_str())) {
        Some(unknown) => Err(bad(format!("`{name}` has `{unknown}`; expected {}", fields.join(", ")))),
        None => Ok(()),
    }
}

fn text(map: &Map<String, Value>, field: &str) -> Result<Option<String>> {
    match map.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(field, other, "a text")),
    }
}

fn count(map: &Map<String, Value>, field: &str) -> Result<Option<u64>> {
    let Some(value) = map.get(field) else { return Ok(None) };
    let n = value.as_u64().filter(|n| *n > 0).ok_or_else(|| wrong(field, value, "a whole number from 1"))?;
    Ok(Some(n))
}

fn millis(field: &str, value: &Value) -> Result<Duration> {
    // A year: what is longer is a mistake, and no sum with the clock overflows.
    const MOST: u64 = 365 * 24 * 3600 * 1000;
    let n = value.as_u64().filter(|n| *n <= MOST);
    let n = n.ok_or_else(|| wrong(field, value, "a time in milliseconds, from 0 to a year"))?;
    Ok(Duration::from_millis(n))
}

fn node(field: &str, value: &Value) -> Result<NodeId> {
    let n = value.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
    n.map(NodeId).ok_or_else(|| wrong(field, value, "the number of a broker, from 0"))
}

fn target(field: &str, value: &Value) -> Result<Option<NodeId>> {
    match value {
        Value::Null | Value::Bool(true) => Ok(None),
        other => node(field, other).map(Some),
    }
}

fn code(name: &str, value: &Value) -> Result<i16> {
    let code = match value {
        Value::String(name) => error_code(name),
        other => other.as_i64().and_then(|n| i16::try_from(n).ok()),
    };
    code.filter(|code| *code != 0)
        .ok_or_else(|| wrong(name, value, "a Kafka error code such as 6 or \"NOT_LEADER_OR_FOLLOWER\""))
}

fn reply(name: &str, value: &Value) -> Result<(u16, String)> {
    let expected = "a reply code such as 406, or {\"code\": 406, \"text\": \"PRECONDITION_FAILED - ...\"}";
    let (code, text) = match value {
        Value::Object(map) => {
            only(name, map, &["code", "text"])?;
            (map.get("code").unwrap_or(&Value::Null), text(map, "text")?)
        }
        other => (other, None),
    };
    let code = code.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| (200..600).contains(n));
    let code = code.ok_or_else(|| wrong(name, value, expected))?;
    Ok((code, text.unwrap_or_else(|| reply_text(code).to_owned())))
}

/// RabbitMQ's word for a reply code.
fn reply_text(code: u16) -> &'static str {
    match code {
        311 => "CONTENT_TOO_LARGE",
        312 => "NO_ROUTE",
        313 => "NO_CONSUMERS",
        320 => "CONNECTION_FORCED",
        402 => "INVALID_PATH",
        403 => "ACCESS_REFUSED",
        404 => "NOT_FOUND",
        405 => "RESOURCE_LOCKED",
        406 => "PRECONDITION_FAILED",
        501 => "FRAME_ERROR",
        502 => "SYNTAX_ERROR",
        503 => "COMMAND_INVALID",
        504 => "CHANNEL_ERROR",
        505 => "UNEXPECTED_FRAME",
        506 => "RESOURCE_ERROR",
        530 => "NOT_ALLOWED",
        540 => "NOT_IMPLEMENTED",
        541 => "INTERNAL_ERROR",
        _ => "UNKNOWN",
    }
}
