#!/usr/bin/env bash
# Measures what a consumed record costs its client: muslin's consumer against librdkafka, krafka, franz-go, the Java client
# and a floor (benches/peers), on one real Kafka, in alternating runs over the same records. benches/README.md holds what came out.
#
#   bench-consumer.sh [--out FILE]          five rounds, about 15 minutes; a JSON line a run goes to FILE, tables to stdout
#   bench-consumer.sh --idle [--out FILE]   what muslin and franz-go cost as consumers of 1,000 quiet partitions; 8 minutes
#   ... --quick                             one round of few records, or 2 s: shows that everything works, measures nothing
#
# A client that fails is named and left out of the tables; the others go on, and the status is 1. muslin reads by batches,
# muslin-acks takes deliveries with an ack each. The clock of each runs from its assignment to its last record.
#
# Env: ROUNDS (5), PEERS (all), LOADS (all, as "none/100 lz4/100"), COUNT_100B (1000000), COUNT_1KB (300000), PARTITIONS (12; 1000
# for --idle), BROKERS_HOME, BROKERS_PORTS (22000), CARGO_TARGET_DIR (target/peers), MUSLIN (a binary to measure instead of a build
# of this one), BUILD=no (the peers as they were built before), LIMIT (seconds a run may take, 600). The machine should be quiet.
# Needs cargo, go, a JDK, Python 3, and a C compiler and make for librdkafka.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=consume quick='' out=''
while [ $# -gt 0 ]; do
  case $1 in
    --idle) mode=idle ;; --quick) quick=1 ;;
    --out) out=${2:?a file}; shift ;;
    *) sed -n '2,16p' "$0" | sed 's/^# \?//'; exit 2 ;;
  esac
  shift
done
rounds=${ROUNDS:-5} of_100b=${COUNT_100B:-1000000} of_1kb=${COUNT_1KB:-300000} seconds=20 rest=10
[ -z "$quick" ] || { rounds=1 of_100b=50000 of_1kb=20000 seconds=2 rest=1; }
loads=${LOADS:-none/100 lz4/100 zstd/100 none/1024} partitions=${PARTITIONS:-12}
all=1 everyone='floor muslin muslin-acks franz-go krafka rdkafka-base rdkafka-stream java'
[ $mode != idle ] || { all='' everyone='muslin franz-go' loads=none/100 of_100b=50000 partitions=${PARTITIONS:-1000}; }
read -ra peers <<<"${PEERS:-$everyone}"
. scripts/bench-peers.sh
lines=${out:-$work/lines}
: >"$lines"

round=0 failed=0
keep() { # keep NAME LOAD LINE: a run's line under the peer's name, if it read what it should
  local line
  line=$(python3 - "$round" "$partitions" "$1" "$2" "$3" <<'P'
import json, sys
round, partitions, name, load, line = sys.argv[1:]
run = json.loads(line)
codec, size = load.split("/")
run |= {"round": int(round), "partitions": int(partitions), "peer": name, "codec": codec, "size": int(size)}
if run.get("check") not in (None, run["count"] * run["size"]):
    sys.exit(f"{name} read {run['check']} bytes of {run['count']} records of {size} B")
print(json.dumps(run))
P
  ) || { missed "$1" "$2" "$3"; return 0; }
  echo "$line" >>"$lines"
  say "$line"
}
missed() { say "$1 failed: $mode, $2: ${3:-nothing said}"; failed=1; }

count_of() { if [ "${1#*/}" = 100 ]; then echo "$of_100b"; else echo "$of_1kb"; fi; }
# What is read, written once: `muslin bench produce`, batches of 64 KiB.
for load in $loads; do
  codec=${load%/*} size=${load#*/}
  topic create "bench-$codec-$size" "$partitions"
  peer muslin produce --kafka "$KAFKA_BOOTSTRAP" --topic "bench-$codec-$size" --count "$(count_of "$load")" --size "$size" --codec "$codec" |
    tail -1 >&2 || die "the records of $load cannot be written"
done

consume() { # consume NAME LOAD
  local name=$1 load=$2 line more=()
  [[ $name = muslin* ]] || more+=(--codec "${load%/*}")
  line=$(peer "$name" consume --kafka "$KAFKA_BOOTSTRAP" --topic "bench-${load/\//-}" --count "$(count_of "$load")" --size "${load#*/}" \
    ${more[@]+"${more[@]}"} | tail -1) || { missed "$name" "$load" "$line"; return 0; }
  keep "$name" "$load" "$line"
}

idle() { # idle NAME: each prints a line a record, so it is known when all are read; what comes then is the cost of waiting
  local name=$1 topic=bench-none-100 line
  case $name in
    muslin) "$MUSLIN" consume --kafka "$KAFKA_BOOTSTRAP" -t $topic -g "bench-$$-$RANDOM" -o beginning -f '%p\n' >"$work/read" & ;;
    franz-go) "$CARGO_TARGET_DIR/franz-go" idle --kafka "$KAFKA_BOOTSTRAP" --topic $topic >"$work/read" & ;;
    *) die "there is no idle $name" ;;
  esac
  background=$!
  if line=$(python3 benches/peers/idle.py $background "$work/read" "$of_100b" "$rest" "$seconds"); then
    keep "$name" none/100 "$line"
  else
    missed "$name" none/100 "$line"
  fi
  kill $background 2>/dev/null || true
  wait $background 2>/dev/null || true
  background=''
}

if [ $mode = consume ]; then
  say "warming the broker up"
  for load in $loads; do consume franz-go "$load"; done
  : >"$lines"
fi
for round in $(seq "$rounds"); do
  for load in $loads; do
    for ((i = 0; i < ${#peers[@]}; i++)); do # another one begins in each round
      $mode "${peers[(i + round - 1) % ${#peers[@]}]}" "$load"
      [ -n "$quick" ] || sleep 1
    done
  done
done
python3 benches/peers/table.py "$lines"
exit $failed
