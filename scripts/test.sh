#!/usr/bin/env bash
# Installs what the tests need, or names what it cannot, runs them all, and ends in one summary.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { # COMMAND DEBIAN-PACKAGE: installs it where that can be done without asking
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $2"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2"; } >/dev/null || true
  fi
  command -v "$1" >/dev/null || missing+=("$1 (Debian package $2)")
}
need cc gcc
need openssl openssl
need curl curl
need make make
need node nodejs
need npm npm
need mosquitto_pub mosquitto-clients
if [ ${#missing[@]} -gt 0 ]; then
  printf 'the tests need what is not installed here and could not be: %s\n' "${missing[@]}" >&2
  exit 1
fi
# As old as what it was made of, it lacks what has been added since.
[ tests/clients/node_modules/.package-lock.json -nt tests/clients/package-lock.json ] || npm ci --silent --prefix tests/clients

log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
RUST_BACKTRACE=${RUST_BACKTRACE:-0} cargo test --no-fail-fast 2>&1 | tee "$log" || code=$?
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
     END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$code"
