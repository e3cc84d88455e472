#!/usr/bin/env bash
# instructions.sh [--keep] : instructions of one HTTP/1.1 request's way through the gateway, by callgrind,
# which counts the same on a busy machine. Fails if they are over TOLERANCE % (3) more than
# instructions.json says; --keep writes what is measured there.
set -euo pipefail
. "$(dirname "$0")/env.sh"
TOLERANCE=${TOLERANCE:-3} kept=$KIT/instructions.json
command -v valgrind > /dev/null || { echo "valgrind is not installed: instructions are not counted"; exit 0; }
backends_start

count() { # count REQUESTS: the instructions of a gateway that has served so many on one connection
  local file=$WORK/callgrind.out
  rm -f "$file"
  WRAP="valgrind --tool=callgrind --callgrind-out-file=$file" gw_start portcullis
  python3 "$KIT/requests.py" "$https" "$CERTS/ec" "$1"
  gw_stop
  awk '/^summary:/ { print $2 }' "$file"
}
few=$(count 500)
many=$(count 2500)
now=$(((many - few) / 2000))
echo "$now instructions for an HTTP/1.1 request over mutual TLS"
if [ "${1:-}" = --keep ]; then printf '{"http1": %d}\n' "$now" > "$kept"; exit; fi
before=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["http1"])' "$kept")
if [ $((now * 100)) -gt $((before * (100 + TOLERANCE))) ]; then
  echo "FAILED: $before before; if they are worth it, keep them: benches/instructions.sh --keep" >&2
  exit 1
fi
