#!/usr/bin/env bash
# Sends a million numbered records with acks=all to three real brokers while their leaders are killed, frozen and restarted, and reads
# them back: none missing, none twice, the order of each key kept. scripts/soak-producer.sh [RECORDS]
set -euo pipefail
cd "$(dirname "$0")/.."
export MUSLIN_RECORDS=${1:-1000000}
cargo test --locked --test kafka_producer_faults -- --nocapture
