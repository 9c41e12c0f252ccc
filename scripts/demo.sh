#!/usr/bin/env bash
# Makes the machine ready, starts a real Kafka and a real RabbitMQ on loopback (or uses MUSLIN_KAFKA and MUSLIN_AMQP), and
# runs `muslin demo` on them (without this script it needs no broker). Arguments go to the demo. The brokers are stopped at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh run
cargo build --release --locked
exec scripts/with-brokers.sh "${CARGO_TARGET_DIR:-target}/release/muslin" demo "$@"
