#!/usr/bin/env bash
# The demo: certificates if there are none, stand-in adapters, the gateway, and commands to try.
# Ctrl-C drains the gateway and ends both.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in cargo openssl; do
  command -v "$tool" >/dev/null || { echo "make run needs $tool, which is not installed" >&2; exit 1; }
done
make --no-print-directory certs
cargo build --bin portcullis --example adapters
bin=${CARGO_TARGET_DIR:-target}/debug

# In sessions of their own, so that Ctrl-C reaches this script alone, which ends them in order.
adapters= gateway= ready=
stop() {
  trap '' INT TERM
  [ -z "$gateway" ] || { kill -TERM "$gateway" 2>/dev/null && wait "$gateway" || true; gateway=; }
  rm -f "$ready"
  [ -z "$adapters" ] || { kill -TERM "$adapters" 2>/dev/null && wait "$adapters" || true; adapters=; }
}
trap 'stop; exit 0' INT TERM
trap stop EXIT

ready=$(mktemp)
setsid "$bin/examples/adapters" > "$ready" &
adapters=$!
until [ -s "$ready" ]; do
  kill -0 "$adapters" 2>/dev/null || exit 1
  sleep 0.1
done
export PORTCULLIS_LOG_FORMAT=${PORTCULLIS_LOG_FORMAT:-text}
setsid "$bin/portcullis" run --config config.toml &
gateway=$!
until "$bin/portcullis" healthcheck --config config.toml >/dev/null 2>&1; do
  kill -0 "$gateway" 2>/dev/null || exit 1
  sleep 0.1
done

secret=$(openssl x509 -in certs/client.crt -noout -subject -nameopt multiline,utf8,-esc_msb | sed -n 's/^ *commonName *= //p')
# How a device is known decides what each command shows: its certificate, or the secret alone.
auth=$(sed -n 's/^auth = "\(.*\)".*/\1/p' config.toml)
if [ "${AUTH:-${PORTCULLIS_AUTH:-$auth}}" = key ]; then
  known="In this mode no certificate is asked for: a device is known by its client secret, here $secret."
  publish="the secret is enough"
  curl="--cacert certs/ca.crt -H \"Authorization: Client $secret\""
  be_refused="Be refused (no secret):
  curl -sS -i --cacert certs/ca.crt https://localhost:8443/http/echo"
  websocket="{ headers: { Authorization: \"Client $secret\" } }"
  mqtt="--cafile certs/ca.crt"
  password="the secret is the password"
else
  known="The device's certificate is certs/client.crt; its CN is the client secret, $secret."
  publish="the certificate is enough"
  curl="--cacert certs/ca.crt --cert certs/client.crt --key certs/client.key"
  be_refused="Be refused (another secret than the certificate's):
  curl -sS -i $curl \\
    -H \"Authorization: Client another\" https://localhost:8443/http/echo"
  websocket="{ cert: fs.readFileSync(\"certs/client.crt\"), key: fs.readFileSync(\"certs/client.key\") }"
  mqtt="--cafile certs/ca.crt --cert certs/client.crt --key certs/client.key"
  password="-P may be left out"
fi
cat <<TEXT

Portcullis listens on https://localhost:8443 (HTTPS, WSS, MQTT over WSS at /mqtt) and on port 8883
(MQTTS), its admin listener on http://127.0.0.1:9900.
$known

Publish ($publish):
  curl -sS -i $curl \\
    -H "Content-Type: application/senml+json" \\
    https://localhost:8443/http/m/home/c/meter -d '[{"n":"voltage","u":"V","v":120.1}]'

See what the adapter gets:
  curl -sS $curl \\
    https://localhost:8443/http/echo

$be_refused

Receive what is published, over a WebSocket (npm install --prefix tests/clients, once):
  NODE_PATH=tests/clients/node_modules NODE_EXTRA_CA_CERTS=certs/ca.crt node -e '
    const fs = require("fs"), WebSocket = require("ws");
    const ws = new WebSocket("wss://localhost:8443/ws/m/home/c/meter",
      $websocket);
    ws.on("message", data => console.log(String(data)));'

Receive it and publish over MQTT (Debian: mosquitto-clients); $password:
  mosquitto_sub -h localhost -p 8883 $mqtt \\
    -u meter -P $secret -t m/home/c/meter
  mosquitto_pub -h localhost -p 8883 $mqtt \\
    -u meter -P $secret -t m/home/c/meter -m '[{"n":"voltage","u":"V","v":120.1}]'

Health and numbers:
  curl -sS http://127.0.0.1:9900/readyz; curl -sS http://127.0.0.1:9900/metrics

Ctrl-C ends it.

TEXT
wait "$gateway"
