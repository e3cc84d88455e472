#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
conf=portcullis.toml
[ -z "${TOKENS:-}" ] || conf=tokens.toml
fill "$here/$conf.in" "$dir/$conf"
launch "${PORTCULLIS:-portcullis}" run --config "$dir/$conf"
if [ -n "${TOKENS:-}" ]; then ready $p1; p2=0 p3=0; else ready $p1 $p2 $p3; fi
echo "pids=$pid https=$p1 https_rsa=$p2 mqtts=$p3 checks=http,mqtt"
