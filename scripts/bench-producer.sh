#!/usr/bin/env bash
# Measures what a produced record costs its client: muslin's producer against librdkafka, krafka, franz-go, the Java client
# and a floor (benches/peers), on one real Kafka, in alternating runs of the same records. benches/README.md holds what came out.
#
#   bench-producer.sh [--out FILE]                five rounds, about 25 minutes; a JSON line a run goes to FILE, tables to stdout
#   bench-producer.sh --partitions [--out FILE]   muslin alone, on a topic of 1, 10, 100, 1,000 and 10,000 partitions; 5 minutes
#   ... --quick                                   one round of few records: shows that everything works, measures nothing
#
# Env: ROUNDS (5), PEERS (all), LOADS (all, as "produce/none/100 latency/none/100"), COUNT_100B (3000000), COUNT_1KB (500000),
# COUNT_LATENCY (10000), PARTITIONS ("1 10 100 1000 10000"), BROKERS_HOME, BROKERS_PORTS (22000), CARGO_TARGET_DIR (target/peers),
# MUSLIN (a binary to measure instead of a build of this one), BUILD=no (the peers as they were built before). The machine should be
# quiet. Needs cargo, go, a JDK, Python 3, and a C compiler and make for librdkafka.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=peers quick='' out=''
while [ $# -gt 0 ]; do
  case $1 in
    --partitions) mode=partitions ;; --quick) quick=1 ;;
    --out) out=${2:?a file}; shift ;;
    *) sed -n '2,14p' "$0" | sed 's/^# \?//'; exit 2 ;;
  esac
  shift
done
# What a run of each load sends: 3 to 8 s for most.
rounds=${ROUNDS:-5} of_100b=${COUNT_100B:-3000000} of_1kb=${COUNT_1KB:-500000} of_latency=${COUNT_LATENCY:-10000}
[ -z "$quick" ] || { rounds=1 of_100b=50000 of_1kb=20000 of_latency=200; }
loads=${LOADS:-produce/none/100 produce/lz4/100 produce/zstd/100 produce/none/1024 latency/none/100}
read -ra peers <<<"${PEERS:-floor muslin rdkafka-base rdkafka-future krafka franz-go java}"
# zstd at the level of each that comes nearest to the others' size; a peer named twice runs at both. lz4: all at their default.
declare -A ZSTD=([muslin]='' [floor]='' [rdkafka-base]='1 3' [rdkafka-future]='1 3' [krafka]='1 3' [franz-go]='1 2' [java]='1 3')

all=''; [ $mode != peers ] || all=1
. scripts/bench-peers.sh
if [ $mode = peers ]; then # those that are ports make the same records
  for size in 100 1024; do
    want=$(peer floor pool --size $size | sha256sum)
    for name in franz-go java; do
      [ "$(peer $name pool --size $size | sha256sum)" = "$want" ] || die "$name makes other records of $size bytes than muslin"
    done
  done
fi

lines=${out:-$work/lines}
: >"$lines"

number=0 failed=0
declare -A made=()
run() { # run NAME OP CODEC SIZE COUNT PARTITIONS [LEVEL]: appends the peer's line and what the topic took. A topic for each run,
  # but not of many partitions: to make those takes longer than all the rest.
  local name=$1 op=$2 codec=$3 size=$4 count=$5 partitions=$6 level=${7:-} topic line bytes more=()
  number=$((number + 1)) topic=bench-$number
  [ $mode = peers ] || topic=bench-of-$partitions
  [ -z "$level" ] || more+=(--level "$level")
  [ "$name" != floor ] || more+=(--partitions "$partitions")
  [ -n "${made[$topic]:-}" ] || topic create $topic "$partitions"
  made[$topic]=1
  line=$(peer "$name" "$op" --kafka "$KAFKA_BOOTSTRAP" --topic $topic --count "$count" --size "$size" --codec "$codec" ${more[@]+"${more[@]}"} | tail -1) ||
    { say "$name failed: $op, $codec, $size B: ${line:-nothing said}"; failed=1; return 0; }
  bytes=$({ find "$BROKERS_HOME/run/kafka/1/data" -path "*/$topic-*" -name '*.log' -printf '%s\n' 2> /dev/null || true; } | awk '{s += $1} END {print s + 0}')
  [ $mode != peers ] || topic delete $topic
  line="{\"round\":$round,\"partitions\":$partitions,\"log_bytes\":$bytes,${line#\{}"
  echo "$line" >>"$lines"
  say "$line"
  [ -n "$quick" ] || sleep 1 # what the broker still has to do for the last run
}

round=0
say "warming the broker up"
run muslin produce none 100 $((of_100b / 3)) 1
: >"$lines"
for round in $(seq "$rounds"); do
  if [ $mode = partitions ]; then
    for partitions in ${PARTITIONS:-1 10 100 1000 10000}; do run muslin produce none 100 "$of_100b" $partitions; done
    continue
  fi
  for load in $loads; do
    IFS=/ read -r op codec size <<<"$load"
    count=$of_100b; [ "$size" = 100 ] || count=$of_1kb; [ "$op" != latency ] || count=$of_latency
    for ((i = 0; i < ${#peers[@]}; i++)); do # another one begins in each round
      name=${peers[(i + round - 1) % ${#peers[@]}]}
      levels=default; [ "$codec" != zstd ] || levels=${ZSTD[$name]:-default}
      for level in $levels; do run "$name" "$op" "$codec" "$size" "$count" 6 "${level#default}"; done
    done
  done
done
python3 benches/peers/table.py "$lines"
exit $failed
