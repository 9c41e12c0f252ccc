#!/usr/bin/env bash
# Fuzzes: every target, or those named, for SECONDS each. Fails on a finding.
#
#   fuzz.sh [SECONDS] [TARGET...]      60 s by default
#
# Begins with the seeds in fuzz/corpus; what it finds new stays in fuzz/target. A finding is kept in fuzz/artifacts, and
# `cargo fuzz run TARGET FILE` shows it again. Needs cargo-fuzz and a C++ compiler; any toolchain will do: the compiler is
# told to take the unstable flags. With the address sanitizer where the toolchain brings its runtime.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=60
case ${1:-} in [0-9]*) seconds=$1; shift ;; esac
command -v cargo-fuzz >/dev/null || { echo "fuzz.sh: needs cargo-fuzz: cargo install --locked cargo-fuzz" >&2; exit 1; }
export RUSTC_BOOTSTRAP=1
host=$(rustc -vV | sed -n 's/^host: //p')
sanitizer=none
compgen -G "$(rustc --print sysroot)/lib/rustlib/$host/lib/librustc*rt.asan.a" >/dev/null && sanitizer=address
target=${CARGO_TARGET_DIR:-$PWD/fuzz/target}
fuzz() { cargo fuzz "$1" --fuzz-dir fuzz --target "$host" --target-dir "$target" --sanitizer "$sanitizer" "${@:2}"; }

all=$(sed -n '/^\[\[bin\]\]/,/^name/s/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml)
fuzz build
for name in ${*:-$all}; do
  found=$target/corpus/$name
  mkdir -p "$found" "fuzz/artifacts/$name"
  echo "fuzz.sh: $name, $seconds s, sanitizer: $sanitizer"
  log=$target/$name.log
  if ! fuzz run "$name" "$found" "fuzz/corpus/$name" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=65536 -print_final_stats=1 >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fuzz.sh: $name: a finding, see fuzz/artifacts/$name" >&2
    exit 1
  fi
  grep -E "^(Done|stat::(number_of_executed_units|peak_rss_mb))" "$log"
done
