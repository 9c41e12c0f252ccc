#!/usr/bin/env bash
# Makes tests/data/batches anew: what the Java client, librdkafka and franz-go write, as a real broker stored it; and
# tests/data/partitions: how the Java client and librdkafka hash keys; and tests/data/assignors: how the Java client
# spreads partitions over the members of groups.
#
#   scripts/with-brokers.sh scripts/make-vectors.sh
#
# Needs MUSLIN_KAFKA (a broker), Java 17+, Python 3 with venv, Go 1.26+, and the registries for their clients.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${MUSLIN_KAFKA:?set it to a broker, or run: scripts/with-brokers.sh $0}"
libs=${KAFKA_LIBS:-$(scripts/brokers.sh libs)}
for tool in java python3 go; do
  command -v "$tool" >/dev/null || { echo "make-vectors.sh: needs '$tool'" >&2; exit 1; }
done
gen=$PWD/tests/data/generate records=$PWD/tests/data/records.json out=$PWD/tests/data/batches
work=$(mktemp -d) run=vectors-$(date +%s)-$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
(cd "$gen/go" && go build -o "$work/vectors" .)
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q confluent-kafka==2.16.1

# vector NAME CODEC [TOPIC CONFIG...] -- COMMAND...: a topic, a program that fills it, a dump.
# Records older than a week must not be swept away, and the broker must not compress anew.
vector() {
  local name=$1 topic=$run-$1 config=(retention.ms=-1 compression.type=producer)
  shift
  while [ "$1" != -- ]; do config+=("$1"); shift; done
  shift
  "$work/vectors" topic "$MUSLIN_KAFKA" "$topic" "${config[@]}"
  TOPIC=$topic "$@"
  "$work/vectors" dump "$MUSLIN_KAFKA" "$topic" "$out/$name.bin"
}
java_() { java -cp "$libs/*" "$gen/Produce.java" "$1" "$MUSLIN_KAFKA" "$TOPIC" "$2" "$records" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; }
librdkafka() { "$work/venv/bin/python" "$gen/produce.py" "$1" "$MUSLIN_KAFKA" "$TOPIC" "$2" "$records"; }
franz() { "$work/vectors" "$1" "$MUSLIN_KAFKA" "$TOPIC" "$2" "$records"; }

for codec in none gzip snappy lz4 zstd; do
  vector "java-$codec" -- java_ idempotent $codec
  vector "librdkafka-$codec" -- librdkafka plain $codec
  vector "franz-go-$codec" -- franz produce $codec
done
vector java-plain -- java_ plain none
vector java-append-time message.timestamp.type=LogAppendTime -- java_ idempotent lz4
vector java-transactions -- java_ transact zstd
vector librdkafka-idempotent -- librdkafka idempotent lz4
vector franz-go-transactions -- franz transact snappy
mkdir -p tests/data/partitions
java -cp "$libs/*" "$gen/Keys.java" "$work/keys"
"$work/venv/bin/python" "$gen/keys.py" "$work/keys" tests/data/partitions/keys.bin
mkdir -p tests/data/assignors
java -cp "$libs/*" "$gen/Assignors.java" tests/data/assignors/rounds.bin 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
du -sh "$out" tests/data/partitions tests/data/assignors
