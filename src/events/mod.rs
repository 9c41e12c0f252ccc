//! Domain events on Kafka: a publisher, and consumers with typed handlers.
