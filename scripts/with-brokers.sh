#!/usr/bin/env bash
# with-brokers.sh COMMAND...: runs COMMAND with MUSLIN_KAFKA, MUSLIN_KAFKA_SASL and MUSLIN_AMQP set. What of them is not set is started on
# loopback (scripts/brokers.sh) and stopped when COMMAND ends; the exit status is COMMAND's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
started=()
finish() { local rc=$?; [ ${#started[@]} = 0 ] || "$here/brokers.sh" down "${started[@]}" || true; exit $rc; }
trap finish EXIT
trap 'exit 130' INT TERM

if [ -z "${MUSLIN_KAFKA:-}" ]; then
  started+=(kafka); out=$("$here/brokers.sh" up kafka); eval "$out"
  export MUSLIN_KAFKA=$KAFKA_BOOTSTRAP MUSLIN_KAFKA_SASL=$KAFKA_BOOTSTRAP_SASL_PLAINTEXT
fi
if [ -z "${MUSLIN_AMQP:-}" ]; then
  started+=(rabbitmq); out=$("$here/brokers.sh" up rabbitmq); eval "$out"; export MUSLIN_AMQP=$RABBITMQ_URL/
fi
echo "with-brokers.sh: Kafka at $MUSLIN_KAFKA, RabbitMQ at ${MUSLIN_AMQP##*@}" >&2
"$@"
