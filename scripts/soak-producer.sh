#!/usr/bin/env bash
# Sends a million numbered records with acks=all to three real brokers while their leaders are killed, frozen and restarted, and reads
# them back: none missing, none twice, the order of each key kept. Then a million in transactions of 1,000 of which every tenth is aborted,
# while transaction coordinators are killed and frozen too: the Java client reads the committed ones alone.
# scripts/soak-producer.sh [RECORDS [ROUNDS]]; a round takes about 2 minutes
set -euo pipefail
cd "$(dirname "$0")/.."
export MUSLIN_RECORDS=${1:-1000000} MUSLIN_ROUNDS=${2:-3}
cargo test --locked --test kafka_producer_faults --test kafka_transactions_faults -- --nocapture
