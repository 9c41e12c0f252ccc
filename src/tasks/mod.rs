//! Tasks on RabbitMQ: a queue of typed work, and a worker with a registry of handlers.
