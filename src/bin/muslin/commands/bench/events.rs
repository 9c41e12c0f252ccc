//! The records of a run: 10,000 keys and 10,000 JSON events, the same in every run.

use bytes::Bytes;

/// How many records the pool has; each has a key of its own.
pub(crate) const POOL: usize = 10_000;
/// The least and most bytes of key and value together.
pub(crate) const SIZES: std::ops::RangeInclusive<usize> = 64..=1_000_000;

/// A key and a value.
pub(crate) type Event = (Bytes, Bytes);

const STATES: [&str; 6] = ["created", "paid", "packed", "shipped", "delivered", "returned"];
const WORDS: [&str; 16] = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll",
    "larch", "marsh", "north", "ocean", "plain",
];

/// The pool, with `size` bytes of key and value in each record; `size` is one of [`SIZES`].
pub(crate) fn pool(size: usize) -> Vec<Event> {
    (0..POOL).map(|n| event(n, size)).collect()
}

fn event(n: usize, size: usize) -> Event {
    let key = format!("order-{n:05}");
    let state = STATES.get(n % STATES.len()).copied().unwrap_or_default();
    let mut value =
        format!("{{\"id\":{},\"is\":\"{state}\",\"sum\":{}.{:02}", POOL + n, 10 + n % 90, n * 7 % 100);
    let (open, close) = (",\"t\":\"", "\"}");
    let room = size.saturating_sub(key.len() + value.len() + open.len() + close.len());
    value.push_str(open);
    let end = value.len() + room;
    // Words in a changing order: a codec finds in it what it finds in texts.
    let mut word = n;
    while value.len() < end {
        word = word.wrapping_mul(31).wrapping_add(7);
        value.push_str(WORDS.get(word / 16 % WORDS.len()).copied().unwrap_or_default());
        value.push(' ');
    }
    value.truncate(end);
    value.push_str(close);
    (Bytes::from(key), Bytes::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_json_of_the_size_asked_for_with_a_key_of_its_own() {
        for size in [*SIZES.start(), 100, 1024, 5000] {
            let pool = pool(size);
            let keys: std::collections::HashSet<_> = pool.iter().map(|(key, _)| key.clone()).collect();
            assert_eq!(keys.len(), POOL);
            for (key, value) in &pool {
                assert_eq!(key.len() + value.len(), size);
            }
            let json: serde_json::Value = serde_json::from_slice(&pool[77].1).unwrap();
            assert_eq!(json["is"], "returned", "{json}");
        }
    }
}
