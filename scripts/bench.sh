#!/usr/bin/env bash
# CPU and memory per operation, beside the proxies that are installed, in alternation in one run.
# SECS (4) a cell, ROUNDS (3), CELLS and PEERS choose; see benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in cargo openssl python3 taskset; do
  command -v "$tool" >/dev/null || { echo "make bench needs $tool, which is not installed" >&2; exit 1; }
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  packages="nginx libnginx-mod-stream libnginx-mod-http-js libnginx-mod-stream-js haproxy mosquitto"
  # shellcheck disable=SC2086
  dpkg -s $packages >/dev/null 2>&1 ||
    { echo "installing $packages"; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null; }
fi
cargo build --release --bin portcullis
cargo build --release --manifest-path benches/loadgen/Cargo.toml --target-dir benches/loadgen/target
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
export PORTCULLIS=${PORTCULLIS:-$target/release/portcullis} LOADGEN=$PWD/benches/loadgen/target/release/loadgen

available() { # a peer is measured where its program is installed
  case $1 in
    portcullis) true ;;
    nginx) command -v nginx && [ -e "${NGINX_MODULES:-/usr/lib/nginx/modules}/ngx_http_js_module.so" ] ;;
    nginx-plain) command -v nginx ;;
    envoy) [ -n "${ENVOY:-}" ] || command -v envoy ;;
    *) command -v "$1" ;;
  esac >/dev/null
}
peers=
for peer in ${PEERS:-portcullis nginx nginx-plain haproxy envoy caddy}; do
  if available "$peer"; then peers="$peers $peer"; else echo "$peer is not installed and not measured"; fi
done

benches/check.sh portcullis
results=benches/results
mkdir -p "$results"
stamp=$(date -u +%Y-%m-%d)
{
  echo "# $stamp, $(git describe --always --dirty)"
  echo
  echo "- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores shared with the load, Linux $(uname -r)"
  echo "- $(rustc --version); $(du -h --apparent-size "$PORTCULLIS" | cut -f1) release binary"
  for peer in $peers; do
    case $peer in nginx) nginx -v 2>&1 | sed 's/^/- /' ;; haproxy) haproxy -v | sed -n '1s/^/- /p' ;; esac
  done
  OUT=$PWD/benches/work/results.jsonl benches/run.sh "${peers# }" "${ROUNDS:-3}" 2>benches/work.log || { tail -n 5 benches/work.log >&2; exit 1; }
} | tee "$results/$stamp.md"
rm -f benches/work.log
cp benches/work/results.jsonl "$results/$stamp.jsonl"
