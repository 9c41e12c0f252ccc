#!/usr/bin/env bash
# Build a pure-Rust package as a static musl binary, with no C compiler for any dependency.
#
#   static.sh setup  [TARGET...]                  install what is needed and build the std(s) once
#   static.sh build  PACKAGE_DIR TARGET [CARGO_ARG...]   cargo build --release + static check (pass --locked yourself)
#   static.sh test   PACKAGE_DIR TARGET [CARGO_ARG...]   cargo test (ARM under qemu-user)
#   static.sh cargo  TARGET CARGO_ARG...          any cargo command in that environment
#
# TARGET: x86_64-unknown-linux-musl | aarch64-unknown-linux-musl | armv7-unknown-linux-musleabihf
# Env: RUST_STATIC_HOME (cache, default ~/.cache/muslin/static), JOBS (default 2), CARGO_TARGET_DIR.
#
# How: Debian's rustc-web/cargo-web come with the library source of the very same compiler
# (rust-web-src), so std is built from it once per target into a private sysroot laid out like
# rustup's; musl's crt objects and libc.a, and LLVM's libunwind.a, are Debian's prebuilt ones,
# unpacked for each architecture without touching dpkg; ld.lld links. `cc` is used only to LINK
# build scripts and proc macros for the host, through a wrapper that refuses to compile.
set -euo pipefail

RUSTC_BIN=/usr/bin/rustc CARGO_BIN=/usr/bin/cargo LLD=ld.lld-19 UNWIND_PKG=libunwind-19-dev
HOST=x86_64-unknown-linux-gnu
ALL="x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf"
JOBS=${JOBS:-2}
HOME_DIR=${RUST_STATIC_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/muslin/static}
die() { echo "static.sh: $*" >&2; exit 1; }

target_vars() { # sets DEB (Debian architecture), MUSL (its musl directory), QEMU
  case $1 in
    x86_64-unknown-linux-musl)       DEB=amd64 MUSL=x86_64-linux-musl    QEMU= ;;
    aarch64-unknown-linux-musl)      DEB=arm64 MUSL=aarch64-linux-musl   QEMU=$HOME_DIR/qemu/usr/bin/qemu-aarch64 ;;
    armv7-unknown-linux-musleabihf)  DEB=armhf MUSL=arm-linux-musleabihf QEMU=$HOME_DIR/qemu/usr/bin/qemu-arm ;;
    *) die "unknown target $1" ;;
  esac
}

install_packages() {
  local want=() p
  for p in rustc-web cargo-web rust-web-src libstd-rust-web-dev lld-19 file gcc libc6-dev binutils; do
    dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || want+=("$p")
  done
  [ ${#want[@]} = 0 ] && return
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}"
}

# The archive that this machine's own apt uses (the first whose path ends in /debian).
debian_mirror() {
  local u; u=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1)
  [ -n "$u" ] || die "no Debian archive in apt's sources"; echo "${u%% }"
}

# Packages downloaded and unpacked beside the system: no `dpkg --add-architecture`, no change to apt's
# sources. Usage: fetch_debs DIR SUITE PACKAGE[:ARCH]...
fetch_debs() {
  local dir=$1 suite=$2 apt=$HOME_DIR/apt-$2 d i; shift 2
  [ -e "$dir/.done" ] && return
  mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial "$apt"/etc "$dir/debs"; : >"$apt/status"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$(debian_mirror)" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg >"$apt/etc/debian.sources"
  local o=(-q -o Dir::State="$apt/state" -o Dir::Cache="$apt/cache" -o Dir::State::status="$apt/status"
           -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/etc" -o APT::Sandbox::User=root
           -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
           -o APT::Architectures::=armhf)
  for i in 1 2 3; do apt-get "${o[@]}" update >/dev/null && break; sleep $((i * 10)); done
  (cd "$dir/debs" && apt-get "${o[@]}" download "$@")
  for d in "$dir"/debs/*.deb; do dpkg-deb -x "$d" "$dir"; done
  rm -rf "$dir/debs"; touch "$dir/.done"
}
# qemu-user 7.2, bookworm's own, hangs (and ignores SIGTERM) when a 32-bit ARM guest shrinks memory
# with mremap, as a realloc of a large buffer does; the 10.0 of backports does not.
fetch_qemu() { [ -z "$QEMU" ] || fetch_debs "$HOME_DIR/qemu" bookworm-backports qemu-user:amd64; }

sysroot_dir() { echo "$HOME_DIR/sysroot-$("$RUSTC_BIN" -vV | sed -n 's/^commit-hash: \(.\{9\}\).*/\1/p')"; }

build_std() { # build_std TARGET
  local t=$1 sr lib src; sr=$(sysroot_dir); lib=$sr/lib/rustlib/$t/lib
  src=$("$RUSTC_BIN" --print sysroot)/lib/rustlib/src/rust/library
  target_vars "$t"; fetch_qemu
  [ -e "$lib/.done" ] && return
  fetch_debs "$HOME_DIR/deb-$DEB" bookworm "musl-dev:$DEB" "$UNWIND_PKG:$DEB"
  rm -rf "$lib"; mkdir -p "$lib/self-contained"
  ln -sfn "$("$RUSTC_BIN" --print sysroot)/lib/rustlib/$HOST" "$sr/lib/rustlib/$HOST"
  # std: the `sysroot` crate of the library workspace pulls in std, both panic runtimes, proc_macro, test
  env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
    PATH="$(wrapper_dir):/usr/bin:/bin" RUSTC="$RUSTC_BIN" RUSTC_BOOTSTRAP=1 CC=false \
    __CARGO_DEFAULT_LIB_METADATA=static RUSTFLAGS="-Cembed-bitcode=yes -Zforce-unstable-if-unmarked" \
    "$CARGO_BIN" build -j"$JOBS" --locked --release --target "$t" --features 'panic-unwind backtrace' \
      --manifest-path "$src/sysroot/Cargo.toml" --target-dir "$HOME_DIR/build-std"
  cp "$HOME_DIR/build-std/$t/release/deps/"*.rlib "$lib/"
  rm -rf "$HOME_DIR/build-std/$t"
  # libc, its crt objects, the unwinder (and the empty archives that libunwind.a asks for by name)
  local m=$HOME_DIR/deb-$DEB/usr/lib/$MUSL s=$lib/self-contained
  cp "$m"/{crt1,rcrt1,Scrt1,crti,crtn}.o "$m"/{libc,libdl,libpthread}.a "$s/"
  cp "$HOME_DIR/deb-$DEB"/usr/lib/llvm-19/lib/libunwind.a "$s/"
  # crtbegin/crtend: on musl all that is left of them is __dso_handle
  printf '%s\n' '#![no_std]' '#[repr(transparent)] pub struct H(*const u8); unsafe impl Sync for H {}' \
    '#[no_mangle] pub static __dso_handle: H = H(core::ptr::null());' >"$s/crtbegin.rs"
  printf '%s\n' '#![no_std]' >"$s/crtend.rs"
  local o; for o in crtbegin crtend; do
    "$RUSTC_BIN" --sysroot "$sr" --target "$t" --edition 2021 --crate-type lib --emit obj -Cpanic=abort \
      -o "$s/$o.o" "$s/$o.rs"
    cp "$s/$o.o" "$s/${o}S.o"
  done
  touch "$lib/.done"
}

# A directory whose cc links host programs but refuses to compile; every other compiler name fails.
wrapper_dir() {
  local w=$HOME_DIR/nocc n; mkdir -p "$w"
  cat >"$w/cc" <<'W'
#!/bin/sh
for a in "$@"; do case $a in
  -c|-S|-E|*.c|*.C|*.cc|*.cpp|*.cxx|*.S|*.s|*.asm) echo "nocc: refused to compile: $*" >&2
    [ -n "${NOCC_LOG:-}" ] && echo "REFUSED $*" >>"$NOCC_LOG"; exit 97 ;;
esac; done
[ -n "${NOCC_LOG:-}" ] && echo "link $(printf '%s\n' "$@" | sed -n '/^-o$/{n;p}')" >>"$NOCC_LOG"
exec /usr/bin/gcc "$@"
W
  for n in gcc g++ c++ clang clang++ cpp as cmake nasm yasm make pkg-config c99 c89 \
           aarch64-linux-gnu-gcc arm-linux-gnueabihf-gcc musl-gcc aarch64-linux-musl-gcc arm-linux-musleabihf-gcc; do
    printf '#!/bin/sh\necho "nocc: %s refused" >&2\n[ -n "${NOCC_LOG:-}" ] && echo "REFUSED %s $*" >>"$NOCC_LOG"\nexit 97\n' \
      "$n" "$n" >"$w/$n"
  done
  chmod +x "$w"/*; echo "$w"
}

in_env() { # in_env TARGET COMMAND...
  local t=$1 up sr; shift; target_vars "$t"; sr=$(sysroot_dir)
  [ -e "$sr/lib/rustlib/$t/lib/.done" ] || die "no std for $t yet: run '$0 setup $t'"
  up=$(echo "$t" | tr 'a-z-' 'A-Z_')
  # __fprintf_chk: glibc's fortified fprintf, which Debian's libunwind.a calls only just before abort()
  env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
    PATH="$(wrapper_dir):/usr/bin:/bin" RUSTC="$RUSTC_BIN" CARGO="$CARGO_BIN" CC=false CXX=false \
    "CARGO_TARGET_${up}_RUSTFLAGS=--sysroot=$sr -Clinker=$LLD -Clinker-flavor=ld.lld -Clink-arg=--defsym=__fprintf_chk=abort ${EXTRA_RUSTFLAGS:-}" \
    ${QEMU:+"CARGO_TARGET_${up}_RUNNER=$QEMU"} "$@"
}

check_static() { # check_static FILE...
  local f bad=0; for f in "$@"; do
    if readelf -lW "$f" | grep -q INTERP || readelf -dW "$f" 2>/dev/null | grep -q NEEDED; then
      echo "NOT static: $f" >&2; bad=1
    else echo "static: $f ($(stat -c %s "$f") bytes) $(file -b "$f" | cut -d, -f1-2)"; fi
  done; return $bad
}

cmd=${1:-}; [ -n "$cmd" ] && shift || { sed -n '2,9p' "$0"; exit 2; }
case $cmd in
  setup) install_packages; for t in ${*:-$ALL}; do build_std "$t"; done ;;
  build)
    pkg=$1 t=$2; shift 2; install_packages; build_std "$t"
    in_env "$t" "$CARGO_BIN" build -j"$JOBS" --release --manifest-path "$pkg/Cargo.toml" --target "$t" \
      --message-format=json-render-diagnostics "$@" >"$HOME_DIR/last-build.json"
    mapfile -t bins < <(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$HOME_DIR/last-build.json" | sort -u)
    [ ${#bins[@]} -gt 0 ] || die "no executable was built"
    check_static "${bins[@]}" ;;
  test) pkg=$1 t=$2; shift 2; install_packages; build_std "$t"
    in_env "$t" "$CARGO_BIN" test -j"$JOBS" --manifest-path "$pkg/Cargo.toml" --target "$t" "$@" ;;
  cargo) t=$1; shift; in_env "$t" "$CARGO_BIN" "$@" ;;
  *) die "unknown command $cmd" ;;
esac
