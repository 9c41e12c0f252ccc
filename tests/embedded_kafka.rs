//! Our own client on the embedded Kafka cluster.

use muslin::embedded;
use muslin::kafka::Client;

#[tokio::test]
async fn a_client_connects_to_an_embedded_cluster() {
    let kafka = embedded::Kafka::builder().brokers(3).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    client.close().await.unwrap();
}
