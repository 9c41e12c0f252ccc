#!/usr/bin/env bash
# Makes the machine ready, starts the brokers, and passes every test. The one test command: CI runs it too.
#
#   test.sh              everything
#   test.sh STAGE...     some of: lint deny features test fuzz bench static
#
# With MUSLIN_KAFKA and MUSLIN_AMQP set, those brokers are used; otherwise real ones are started on loopback
# (scripts/brokers.sh) and stopped at the end. FUZZ_SECONDS (5) is the time per fuzz target.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} RUST_BACKTRACE=${RUST_BACKTRACE:-1}
CACHE=${MUSLIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muslin}
step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

lint() {
  step "lint: formatting, clippy without a warning, documentation without a broken link"
  cargo fmt --check
  cargo clippy --quiet --locked --all-features --all-targets -- -D warnings
  # The planted bugs of scripts/plants.sh still fit the sources.
  for patch in tests/plants/*.patch; do git apply --check "$patch"; done
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --all-features --no-deps
}
deny() {
  step "deny: no crate that compiles or links C, known licences, known sources"
  PATH=$CACHE/cargo/bin:$PATH cargo deny --locked --all-features check bans licenses sources
  scripts/c-free.sh
}
features() {
  step "features: each alone builds without a warning"
  local f
  for f in "" gzip snappy lz4 zstd redb kafka amqp kafka,amqp embedded; do
    echo "features: ${f:-none}"
    RUSTFLAGS="-D warnings" cargo check --quiet --locked --lib --no-default-features --features "$f"
  done
}
tests() {
  step "test: unit, property, command line, and both brokers"
  KAFKA_LIBS=${KAFKA_LIBS:-$(scripts/brokers.sh libs)} scripts/with-brokers.sh cargo test --locked --all-features --no-fail-fast
}
fuzz() {
  step "fuzz: every target for ${FUZZ_SECONDS:-5} s"
  PATH=$CACHE/cargo/bin:$PATH scripts/fuzz.sh "${FUZZ_SECONDS:-5}"
}
bench() {
  step "bench: every benchmark runs (one pass, nothing measured)"
  cargo bench --quiet --locked --all-features --bench codec --bench compression --bench ack_tracker --bench idempotency --bench embedded -- --test
}
static() {
  step "static: a musl binary built with CC=false and no compiler in PATH runs the demo, alone and on both real brokers"
  local target=x86_64-unknown-linux-musl dir=$PWD/target/static
  scripts/static.sh setup $target
  CARGO_TARGET_DIR=$dir scripts/static.sh build . $target --locked
  env -i "$dir/$target/release/muslin" demo
  scripts/with-brokers.sh "$dir/$target/release/muslin" demo
}

scripts/setup.sh test
# After the set-up, which leaves a Python of the user's own alone.
export MUSLIN_PYTHON=${MUSLIN_PYTHON:-$CACHE/python/bin/python}
for stage in ${*:-lint deny features test fuzz bench static}; do
  case $stage in
    lint | deny | features | fuzz | bench | static) $stage ;;
    test) tests ;;
    *) echo "test.sh: unknown stage '$stage'" >&2; exit 2 ;;
  esac
done
step "all passed"
