#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
fill "$here/portcullis.toml.in" "$dir/portcullis.toml"
launch "${PORTCULLIS:-portcullis}" run --config "$dir/portcullis.toml"
ready $p1 $p2 $p3
echo "pids=$pid https=$p1 https_rsa=$p2 mqtts=$p3 checks=http,mqtt"
