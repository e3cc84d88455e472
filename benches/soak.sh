#!/usr/bin/env bash
# soak.sh : every kind of work in turn for MINUTES (60), while 500 WebSockets and 500 MQTT sessions stay
# open, and what the gateway holds meanwhile. A line of JSON a round goes to work/soak.jsonl. Fails on any
# error, if memory grows after the first third, or if descriptors stay open.
set -uo pipefail
. "$(dirname "$0")/env.sh"
MINUTES=${MINUTES:-60} SECS=${SECS:-10}
out=$WORK/soak.jsonl
: > "$out"
backends_start
gw_start portcullis || exit 1

held=() logs=()
hold() { # hold MODE PORT ARGUMENT...: connections that stay
  local mode=$1 port=$2
  shift 2
  logs+=("$WORK/soak-$mode.json")
  "$LG" idle --mode "$mode" --conns 500 --duration $((MINUTES * 60)) --addr "127.0.0.1:$port" "${id_ec[@]}" "$@" > "$WORK/soak-$mode.json" & held+=($!)
}
hold ws "$https"
[ "$mqtts" = 0 ] || hold mqtt "$mqtts" --password "$CN"

cell() {
  local name=$1 line
  shift
  line=$("$LG" "$@" --duration "$SECS" --pids "$pids" "${id_ec[@]}" 2>&1 | tail -n 1)
  [[ $line == "{"*"}" ]] || line='{"errors":1,"first_error":"no result"}'
  printf '{"cell":"%s","seconds":%d,"fds":%d,"rss_kib":%d,"r":%s}\n' "$name" "$SECONDS" "$(find "/proc/$pids/fd" -mindepth 1 2> /dev/null | wc -l)" \
    "$(awk '/^VmRSS/ { print $2 }' "/proc/$pids/status")" "$line" >> "$out"
}
end=$((SECONDS + MINUTES * 60 - 5 * SECS))
while [ $SECONDS -lt $end ]; do
  cell http1 http1 --conns 32 --addr "127.0.0.1:$https" --header "authorization: Client $CN"
  cell handshake handshake --conns 4 --addr "127.0.0.1:$https"
  cell resumed handshake --conns 4 --resume --addr "127.0.0.1:$https"
  cell http2 http2 --conns 4 --streams 16 --addr "127.0.0.1:$https" --header "authorization: Client $CN"
  cell ws ws --conns 32 --size 64 --addr "127.0.0.1:$https" --header "authorization: Client $CN"
  cell refused http1 --conns 8 --addr "127.0.0.1:$https" --header "authorization: Client wrong"
  [ "$mqtts" = 0 ] || cell mqtt mqtt --conns 16 --qos 1 --size 64 --password "$CN" --addr "127.0.0.1:$mqtts"
  tail -n 1 "$out" | cut -c1-80 >&2
done
wait "${held[@]}"
python3 "$KIT/soak.py" "$out" "${logs[@]}"
