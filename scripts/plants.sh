#!/usr/bin/env bash
# Proves that the simulation finds bugs: plants each of tests/plants/*.patch into a copy of the sources, one at a time, and
# runs seeds until one fails. A plant that survives 500 seeds is an error. scripts/plants.sh [NAME...]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
most=500
# Of its own: what is built from a planted copy must never be taken for a build of these sources.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/plants
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy" --
cd "$copy"

if [ $# -gt 0 ]; then names=("$@"); else names=(); for p in tests/plants/*.patch; do names+=("$(basename "$p" .patch)"); done; fi
survived=0
for name in "${names[@]}"; do
    patch=tests/plants/$name.patch
    git apply "$patch" || { echo "$name: the patch does not fit the sources any more" >&2; exit 1; }
    if ! cargo test --quiet --no-default-features --features embedded --test simulation --no-run 2> build.log; then
        cat build.log >&2
        echo "$name: does not compile" >&2
        exit 1
    fi
    if MUSLIN_SIM_SEEDS=$most MUSLIN_SIM_STOP=1 cargo test --quiet --no-default-features --features embedded \
        --test simulation -- no_seed_breaks --nocapture > found.log 2>&1; then
        echo "$name: NOT found within $most seeds"
        survived=1
    else
        echo "$name: found by seed $(sed -n 's/^seed \([0-9]*\) .*/\1/p' found.log | head -1)"
        sed -n '/^seed /{n;p;q}' found.log
    fi
    git apply -R "$patch"
done
exit $survived
