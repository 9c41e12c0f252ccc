//! The scenes on a real broker.

use std::time::Duration;

use muslin::Topic;
use muslin::kafka::Client;

use crate::common;
use crate::scenes;

async fn ground() -> (Client, Topic, String) {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    let topic = Topic::new(common::unique("transactions")).unwrap();
    client.create_topic(&topic, scenes::PARTITIONS, 1).await.unwrap();
    (client, topic, common::unique("id"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_is_read_and_aborted_is_not() {
    let (client, topic, id) = ground().await;
    scenes::committed_is_read_and_aborted_is_not(&client, &topic, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_count_with_their_transaction() {
    let (client, topic, id) = ground().await;
    scenes::offsets_count_with_their_transaction(&client, &topic, &id, &common::unique("group")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_producer_fences_the_older() {
    let (client, topic, id) = ground().await;
    scenes::the_newer_producer_fences_the_older(&client, &topic, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_open_too_long_is_aborted() {
    let (client, topic, id) = ground().await;
    // The broker looks every 10 s.
    let pass = || tokio::time::sleep(Duration::from_secs(13));
    scenes::a_transaction_that_is_open_too_long_is_aborted(&client, &topic, &id, pass).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_aborts() {
    let (client, topic, id) = ground().await;
    scenes::dropping_aborts(&client, &topic, &id).await;
}
