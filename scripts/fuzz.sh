#!/usr/bin/env bash
# Fuzzes every parser of our own, each for FUZZ_SECONDS (60). Needs a nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo +nightly --version >/dev/null 2>&1 ||
  { echo "make fuzz needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
for target in $(cargo +nightly fuzz list); do
  echo "fuzzing $target"
  cargo +nightly fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -print_final_stats=1 2>&1 |
    grep -E "stat::(number_of_executed_units|peak_rss_mb)|ERROR|panicked|Test unit" || true
  [ "${PIPESTATUS[0]}" = 0 ] || { echo "$target: see fuzz/artifacts/$target" >&2; exit 1; }
done
