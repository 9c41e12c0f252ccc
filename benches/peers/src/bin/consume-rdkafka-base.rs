//! librdkafka through rust-rdkafka's `BaseConsumer`: a poll for each record.

use std::time::{Duration, Instant};

use peers::{Args, Clock, PATIENCE, Reading, die, librdkafka_consumer};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};

fn main() {
    let mut reading = Reading::new(Args::consumer());
    let consumer: BaseConsumer<Clock> =
        librdkafka_consumer(&reading).create_with_context(reading.clock()).unwrap_or_else(|e| die(e));
    consumer.subscribe(&[reading.source().1]).unwrap_or_else(|e| die(e));
    let began = Instant::now();
    loop {
        let record = match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(record)) => record,
            Some(Err(e)) => die(e),
            None if began.elapsed() > PATIENCE * 3 => die("the records do not come"),
            None => continue, // in that time, or something else came
        };
        if reading.record(record.key(), record.payload()) {
            break;
        }
    }
    reading.end("rdkafka-base");
}
