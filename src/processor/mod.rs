//! One engine for events and tasks: order by key, bounded concurrency, idempotency, retry, dead letters, drain.
