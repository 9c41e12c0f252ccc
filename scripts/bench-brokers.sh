#!/usr/bin/env bash
# Loads `muslin serve`, an Apache Kafka and a RabbitMQ with foreign clients (librdkafka, amqp091-go) in the same run, and
# prints throughput, the brokers' CPU time per million messages and their memory. benches/README.md holds what came out.
#
#   bench-brokers.sh [COUNT] [ROUNDS]      1,000,000 records of 100 B (a fifth for RabbitMQ), 3 rounds
#
# Starts all three itself, on ports from BROKERS_PORTS (21000), and stops them. The real ones get their full compilers. The
# machine should be quiet. Needs go, and what `setup.sh test` brings.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-1000000} rounds=${2:-3}
CACHE=${MUSLIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muslin}
python=${MUSLIN_PYTHON:-$CACHE/python/bin/python}
export BROKERS_PORTS=${BROKERS_PORTS:-21000} KAFKA_JVM=${KAFKA_JVM:--Xmx1g}
work=$(mktemp -d)
serves=()
finish() {
  local rc=$?
  [ ${#serves[@]} = 0 ] || kill "${serves[@]}" 2>/dev/null || true
  scripts/brokers.sh down kafka rabbitmq >&2 || true
  rm -rf "$work"
  exit $rc
}
trap finish EXIT
trap 'exit 130' INT TERM

cargo build --release --locked --quiet
(cd benches/brokers/amqp && PATH=$CACHE/go/bin:$PATH go build -o "$work/amqpload" .)
out=$(scripts/brokers.sh up kafka rabbitmq); eval "$out"
serve() { # serve KIND: one for each, so that memory is told apart; sets its pid and variables
  "${CARGO_TARGET_DIR:-target}/release/muslin" serve --ready-file "$work/$1" >"$work/$1.log" 2>&1 & pid=$!
  serves+=("$pid")
  until [ -e "$work/$1" ]; do kill -0 "$pid" || { cat "$work/$1.log" >&2; exit 1; }; sleep 0.01; done
  . "$work/$1"
}
real() { scripts/brokers.sh node "$1" 1 pid; }
serve kafka; brokers=("kafka muslin_serve $pid $MUSLIN_KAFKA" "kafka Apache_Kafka $(real kafka) $KAFKA_BOOTSTRAP")
serve amqp; brokers+=("amqp muslin_serve $pid $MUSLIN_AMQP" "amqp RabbitMQ $(real rabbitmq) $RABBITMQ_URL/")
"$python" benches/brokers/run.py "$count" "$rounds" "$work/amqpload" "${brokers[@]}"
