#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
launch "${LG:?the load generator, which is the relay too}" relay --certs "$certs" --https $p1 --https-rsa $p2 --mqtts $p3 --origin $up --broker $mq
ready $p1 $p2 $p3
echo "pids=$pid https=$p1 https_rsa=$p2 mqtts=$p3 http2=0 checks="
