//! librdkafka through rust-rdkafka's `StreamConsumer`: a future for each record.

use peers::{Args, Clock, PATIENCE, Reading, die, librdkafka_consumer};
use rdkafka::Message;
use rdkafka::consumer::{Consumer, StreamConsumer};

async fn read(reading: &mut Reading, consumer: &StreamConsumer<Clock>) {
    loop {
        let record = consumer.recv().await.unwrap_or_else(|e| die(e));
        if reading.record(record.key(), record.payload()) {
            break;
        }
    }
}

#[tokio::main]
async fn main() {
    let mut reading = Reading::new(Args::consumer());
    let consumer: StreamConsumer<Clock> =
        librdkafka_consumer(&reading).create_with_context(reading.clock()).unwrap_or_else(|e| die(e));
    consumer.subscribe(&[reading.source().1]).unwrap_or_else(|e| die(e));
    // A timer for each record would cost more than the record.
    let done = tokio::time::timeout(PATIENCE * 3, read(&mut reading, &consumer)).await;
    done.unwrap_or_else(|_| die("the records do not come"));
    reading.end("rdkafka-stream");
}
