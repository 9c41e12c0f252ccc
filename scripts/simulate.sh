#!/usr/bin/env bash
# Runs all workloads of the simulation over many seeds: scripts/simulate.sh SEEDS [FROM]. A seed that fails is told; run it alone with
# scripts/simulate.sh 1 SEED, and with MUSLIN_SIM_LOG=1 to see what the client says of itself.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:?usage: scripts/simulate.sh SEEDS [FROM]}
from=${2:-1}
# Thousands of seeds: worth a build that runs some times faster, with every check of a debug build.
export CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/simulate
MUSLIN_SIM_SEEDS=$seeds MUSLIN_SIM_FROM=$from \
    cargo test --quiet --no-default-features --features embedded --test simulation -- no_seed --nocapture
