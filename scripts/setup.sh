#!/usr/bin/env bash
# Makes a Debian 12 machine ready: what the tests need and is not there yet. Run by the other scripts; safe to run again.
#
#   setup.sh run      a Rust toolchain, Java and Maven: enough to build, start brokers and run the demo
#   setup.sh test     also the clients of Python, Go and Java, the reference compressors, cargo-deny, cargo-fuzz
#
# Installs Debian packages only where a command is missing (as root, or through sudo), and the rest below
# $MUSLIN_CACHE (~/.cache/muslin). On another system it names what to install by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
CACHE=${MUSLIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muslin}
DENY_VERSION=0.20.2 FUZZ_VERSION=0.13.2 AMQP_JAR=amqp-client-5.26.0
say() { echo "setup.sh: $*" >&2; }
die() { say "$@"; exit 1; }

packages() { # packages COMMAND=PACKAGE...: apt-get install what is missing
  local pair want=() sudo=
  for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || want+=("${pair#*=}"); done
  [ ${#want[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "this is not Debian: install ${want[*]} (or your system's names for them) and try again"
  [ "$(id -u)" = 0 ] || sudo=sudo
  say "installing ${want[*]}"
  $sudo apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${want[@]}" >/dev/null
}

rust() { # Debian 12's own cargo is too old; rustc-web is the maintained one beside it
  packages cargo=cargo-web rustc=rustc-web cc=gcc
  local want have
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have=$(rustc --version | sed 's/rustc \([0-9]*\.[0-9]*\).*/\1/')
  [ "$(printf '%s\n' "$want" "$have" | sort -V | head -1)" = "$want" ] ||
    die "rustc $have is older than $want, which Cargo.toml asks for: install a newer one (Debian: rustc-web cargo-web)"
}

python() { # a virtual environment of our own; MUSLIN_PYTHON overrides it
  local venv=$CACHE/python
  [ -z "${MUSLIN_PYTHON:-}" ] || return 0
  cmp -s tests/python/requirements.txt "$venv/requirements.txt" 2>/dev/null && return 0
  packages python3=python3
  python3 -c 'import ensurepip' 2>/dev/null || packages no-ensurepip=python3-venv
  say "installing the Python clients into $venv"
  rm -rf "$venv"; python3 -m venv "$venv"
  "$venv/bin/pip" install -q -r tests/python/requirements.txt
  cp tests/python/requirements.txt "$venv/requirements.txt"
}

golang() { # Debian 12's own go is too old, but it fetches a newer one, which is a module as any other
  local want have go dir
  want=$(sed -n 's/^go //p' tests/foreign/go/go.mod)
  for go in "$CACHE/go/bin/go" go; do
    have=$(GOTOOLCHAIN=local "$go" version 2>/dev/null | sed 's/go version go\([0-9.]*\).*/\1/' || true)
    [ -z "$have" ] || [ "$(printf '%s\n' "$want" "$have" | sort -V | head -1)" != "$want" ] || return 0
  done
  packages go=golang-go
  say "fetching Go $want into $CACHE/go"
  dir=$(GOTOOLCHAIN=local go mod download -json "golang.org/toolchain@v0.0.1-go$want.linux-$(go env GOARCH)" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  rm -rf "$CACHE/go"; cp -r "$dir" "$CACHE/go"; chmod -R u+w "$CACHE/go"
  chmod +x "$CACHE"/go/bin/* "$CACHE"/go/pkg/tool/*/*
}

java_client() { # RabbitMQ's; what it logs with is among Kafka's jars
  [ ! -e "$CACHE/java/$AMQP_JAR.jar" ] || return 0
  say "fetching $AMQP_JAR"
  rm -rf "$CACHE/java"
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy "-Dartifact=com.rabbitmq:${AMQP_JAR%-*}:${AMQP_JAR##*-}" \
    -DoutputDirectory="$CACHE/java" >&2
}

tool() { # tool NAME VERSION: a cargo subcommand of that version, below the cache
  [ "$("$CACHE/cargo/bin/$1" --version 2>/dev/null | awk '{print $2}')" = "$2" ] && return 0
  case "$(command -v "$1" 2>/dev/null)" in "") ;; *) [ "$("$1" --version 2>/dev/null | awk '{print $2}')" = "$2" ] && return 0 ;; esac
  say "building $1 $2 (once)"
  cargo install --quiet --locked --root "$CACHE/cargo" --version "$2" "$1"
}

case ${1:-} in
  run) rust; packages java=openjdk-17-jre-headless mvn=maven openssl=openssl flock=util-linux ;;
  test)
    "$0" run
    packages cargo-clippy=rust-web-clippy cargo-fmt=rustfmt-web zstd=zstd lz4=lz4 gzip=gzip javac=openjdk-17-jdk-headless g++=g++ readelf=binutils
    python
    golang
    java_client
    tool cargo-deny $DENY_VERSION
    tool cargo-fuzz $FUZZ_VERSION ;;
  *) sed -n '2,8p' "$0" | sed 's/^# \?//'; exit 2 ;;
esac
