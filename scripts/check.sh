#!/usr/bin/env bash
# What a change must pass besides the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "formatting"; cargo fmt --check
echo "lints"; cargo clippy --quiet --all-targets -- -D warnings
if command -v c++ >/dev/null; then
  echo "fuzz targets"; cargo check --quiet --manifest-path fuzz/Cargo.toml
else
  echo "fuzz targets: NOT CHECKED, a C++ compiler is missing"
fi
echo "documentation"; RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
if command -v cargo-deny >/dev/null; then
  echo "dependencies"; cargo deny --log-level error check bans licenses sources
  # The list of advisories is fetched: without a network this one check cannot be done.
  cargo deny --log-level error check advisories ||
    if cargo deny --log-level error fetch db 2>/dev/null; then exit 1; else
      echo "advisories: NOT CHECKED, the list cannot be fetched from here"
    fi
else
  echo "dependencies: NOT CHECKED, cargo-deny is missing (cargo install cargo-deny)"
fi
echo "all checks passed"
