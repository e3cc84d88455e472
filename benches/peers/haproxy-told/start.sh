#!/usr/bin/env bash
# HAProxy that tells the origin of the client, numbers requests and dates answers, as portcullis always does.
. "$(dirname "$0")/../lib.sh"
fill "$here/../haproxy/haproxy.cfg.in" "$dir/haproxy.cfg"
sed -i "/default_backend origin/r $here/told.cfg" "$dir/haproxy.cfg"
launch haproxy -db -f "$dir/haproxy.cfg"
ready $p1 $p2 $p3
echo "pids=$pid https=$p1 https_rsa=$p2 mqtts=$p3 checks=http,mqtt"
