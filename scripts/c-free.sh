#!/usr/bin/env bash
# Fails if a crate in the normal or build tree of any feature set, on any target, links a native library (`links`), is named
# *-sys, or builds with cc, cmake or their kind. deny.toml bans the known names; this looks at what each crate declares.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$(cargo tree --locked --all-features --target all --edges normal,build --prefix none --format '{p}' | awk '{print $1" "substr($2,2)}' | sort -u)
cargo metadata --locked --all-features --format-version 1 | python3 -c '
import json, sys
tree = {tuple(line.split()) for line in sys.argv[1].splitlines()}
# Declarations of a system interface in Rust: nothing is compiled or linked beyond the system itself.
pure = {"windows-sys", "js-sys", "web-sys", "linux-raw-sys"}
# `links` used as a lock against two versions, not for a library.
lock = {"rayon-core", "wasm-bindgen-shared"}
bad, seen = [], 0
for p in json.load(sys.stdin)["packages"]:
    if (p["name"], p["version"]) not in tree: continue
    seen += 1
    if p["links"] and p["name"] not in lock: bad.append(p["name"] + " links " + p["links"])
    if p["name"].endswith("-sys") and p["name"] not in pure: bad.append(p["name"] + " is a binding to C")
    for d in p["dependencies"]:
        if d["kind"] == "build" and d["name"] in {"cc", "cmake", "nasm-rs", "bindgen", "pkg-config", "autotools", "vcpkg"} and not d["optional"]:
            bad.append(p["name"] + " builds with " + d["name"])
if seen < 20: bad.append("only %d crates were looked at: the check itself is broken" % seen)
print("c-free: %d crates in all features and targets, %d of them with C" % (seen, len(bad)))
for b in bad: print("c-free: " + b, file=sys.stderr)
sys.exit(bool(bad))' "$tree"
