#!/usr/bin/env bash
# Fuzzes every parser of our own, each for FUZZ_SECONDS (60). The sanitizer is an unstable feature of the
# compiler: where no nightly toolchain is installed, the usual one is told to take it all the same.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo +nightly --version >/dev/null 2>&1; then toolchain=+nightly; else toolchain=; export RUSTC_BOOTSTRAP=1; fi
fuzz() { cargo ${toolchain:+"$toolchain"} fuzz "$@"; }
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in $(fuzz list); do
  echo "fuzzing $target"
  fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -print_final_stats=1 > "$log" 2>&1 ||
    { tail -n 40 "$log" >&2; echo "$target: see fuzz/artifacts/$target" >&2; exit 1; }
  grep -E "stat::(number_of_executed_units|peak_rss_mb)" "$log"
done
