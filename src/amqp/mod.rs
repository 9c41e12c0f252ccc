//! The RabbitMQ client.
