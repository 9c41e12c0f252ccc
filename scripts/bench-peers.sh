# What bench-producer.sh and bench-consumer.sh have in common. They source it with `all` set if more is to run than muslin and
# franz-go; it leaves them everything built, a broker that runs and is stopped at the end, and `work`, a folder.
say() { echo "$(basename "$0"): $*" >&2; }
die() { say "$@"; exit 2; }

need() { command -v "$1" >/dev/null || die "needs $1: $2"; }
need python3 "Debian's python3"; need cargo "scripts/setup.sh run brings it"
if [ -n "$all" ]; then
  need cc "Debian's gcc (librdkafka)"; need c++ "Debian's g++ (librdkafka)"; need make "Debian's make (librdkafka)"
  need javac "Debian's openjdk-17-jdk-headless"
fi
need go "a Go of the version in benches/peers/go/go.mod, or scripts/setup.sh test"
need java "scripts/setup.sh run brings it"

# --- build: peers and muslin in one folder ----------------------------------------------------------------------------------
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/peers}
mkdir -p "$CARGO_TARGET_DIR"
say "building in $CARGO_TARGET_DIR"
if [ -z "${MUSLIN:-}" ]; then
  cargo build --release --locked --quiet --bin muslin
  MUSLIN=$CARGO_TARGET_DIR/release/muslin
fi
libs=$(scripts/brokers.sh libs)
if [ "${BUILD:-}" != no ]; then
  (cd benches/peers/go && PATH=${MUSLIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muslin}/go/bin:$PATH go build -o "$CARGO_TARGET_DIR/franz-go" .)
  if [ -n "$all" ]; then
    # Not --locked: the floor has muslin's codec in it, whose needs may have changed since. What is measured is pinned in Cargo.toml.
    cargo build --release --quiet --manifest-path benches/peers/Cargo.toml
    javac -nowarn -d "$CARGO_TARGET_DIR/java" -cp "$libs/*" benches/peers/java/Peer.java
  fi
fi
peer() { # peer NAME OP ARG...: runs it, but not for ever
  local name=$1 op=$2; shift 2
  case $name in
    muslin) set -- "$MUSLIN" bench "$op" "$@" --output json ;;
    muslin-acks) set -- "$MUSLIN" bench "$op" --per-record "$@" --output json ;;
    franz-go) set -- "$CARGO_TARGET_DIR/franz-go" "$op" "$@" ;;
    java) set -- java -Xmx512m -Dlog4j2.level=error -cp "$CARGO_TARGET_DIR/java:$libs/*" Peer "$op" "$@" ;;
    *) [ "$op" != consume ] || name=consume-$name; set -- "$CARGO_TARGET_DIR/release/$name" "$op" "$@" ;;
  esac
  timeout "${LIMIT:-600}" "$@"
}

# --- the broker -------------------------------------------------------------------------------------------------------------
export BROKERS_HOME=${BROKERS_HOME:-$CARGO_TARGET_DIR/brokers} BROKERS_PORTS=${BROKERS_PORTS:-22000} KAFKA_JVM=${KAFKA_JVM:--Xmx1g}
background=''
finish() {
  local rc=$?
  [ -z "$background" ] || kill "$background" 2>/dev/null || true
  scripts/brokers.sh down kafka >&2 || true
  [ -z "${work:-}" ] || rm -rf "$work"
  exit $rc
}
work=$(mktemp -d)
trap finish EXIT
trap 'exit 130' INT TERM
found=$(scripts/brokers.sh up kafka); eval "$found"
topic() { # topic create|delete NAME [PARTITIONS]
  "$CARGO_TARGET_DIR/franz-go" "$1" --kafka "$KAFKA_BOOTSTRAP" --topic "$2" --partitions "${3:-0}" || die "the broker does not $1 $2"
}
