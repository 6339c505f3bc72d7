# Shared by the stages in this directory; sourced, never run.
# shellcheck shell=bash

# Debian keeps nft, iptables and nginx in directories that an ordinary user's PATH leaves out.
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

skipped=()

say() { printf '\n== %s\n' "$*"; }

# skip WHAT WHY: nothing is left out in silence; recap_skips repeats the list near the end.
skip() {
  skipped+=("$1: $2")
  printf 'SKIPPED %s: %s\n' "$1" "$2" >&2
}

recap_skips() {
  if [ ${#skipped[@]} -eq 0 ]; then
    echo "nothing was skipped by the script"
  else
    printf 'skipped: %s\n' "${skipped[@]}"
  fi
}

# Prints the prefix that gives a command root, or fails.
root_prefix() {
  if [ "$(id -u)" = 0 ]; then
    echo env
  elif sudo -n true 2>/dev/null; then
    echo "sudo -n"
  else
    return 1
  fi
}

# install_missing PACKAGE:PROGRAM ...: installs each Debian package whose program is absent.
# A package that cannot be installed is named; what needs it says again that it is missing.
install_missing() {
  local missing=() entry package program prefix
  for entry in "$@"; do
    package=${entry%%:*} program=${entry##*:}
    command -v "$program" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if ! command -v apt-get >/dev/null 2>&1; then
    skip "installing ${missing[*]}" "no apt-get here; install the packages of the same names by hand"
    return 0
  fi
  if ! prefix=$(root_prefix); then
    skip "installing ${missing[*]}" "not root and no sudo; run: sudo apt-get install ${missing[*]}"
    return 0
  fi
  say "installing ${missing[*]}"
  # A service that a package would start belongs to the host, not to a test: nginx stays down.
  local policy=/usr/sbin/policy-rc.d made_policy=0
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $prefix tee $policy >/dev/null && $prefix chmod 755 $policy && made_policy=1
  fi
  if ! { $prefix apt-get update -qq && $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
    skip "installing ${missing[*]}" "apt-get failed; the lines above say why"
  fi
  [ $made_policy = 1 ] && $prefix rm -f $policy
  return 0
}

require_cargo() {
  command -v cargo >/dev/null 2>&1 && return 0
  echo "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer (rustup.rs, or your distribution's package)" >&2
  exit 1
}

# shellcheck disable=SC2034 # the stages use it
lab_packages=(nftables:nft iptables:iptables-nft)

# libraries_of PROGRAM...: the files they are linked with.
libraries_of() { ldd "$@" 2>/dev/null | sed -nE 's/[^/]*(\/[^ ]+) \(0x.*/\1/p' | sort -u; }
