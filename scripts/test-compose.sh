#!/usr/bin/env bash
# The specification's own commands against the composition, by client secret and by certificate.
# COMPOSE names the program (docker-compose, "docker compose", podman-compose ...). BUILDER=prebuilt
# takes the binaries of `cargo build --release` instead of compiling inside the build.
set -euo pipefail
cd "$(dirname "$0")/.."

compose=${COMPOSE:-$(command -v docker-compose || echo docker compose)}
up() { AUTH=$1 $compose -f docker/docker-compose.yml up -d >/dev/null; }
down() { $compose -f docker/docker-compose.yml down >/dev/null 2>&1 || true; }
for tool in curl node mosquitto_pub mosquitto_sub openssl; do
  command -v "$tool" >/dev/null || { echo "make test-compose needs $tool, which is not installed" >&2; exit 1; }
done
# As old as what it was made of, it lacks what has been added since.
[ tests/clients/node_modules/.package-lock.json -nt tests/clients/package-lock.json ] || npm ci --silent --prefix tests/clients
make --no-print-directory certs
if [ "${BUILDER:-compiled}" = prebuilt ]; then
  cargo build --release --bin portcullis --example adapters
  target=${CARGO_TARGET_DIR:-target}/release
  mkdir -p docker/bin
  cp "$target/portcullis" "$target/examples/adapters" docker/bin/
fi
$compose -f docker/docker-compose.yml build

work=$(mktemp -d)
trap 'down; rm -rf "$work"' EXIT
secret=d7cc2964-a48b-4a6e-871a-08da28e7883d
fixtures=tests/gateway/fixtures/specification
passed=0 failed=0
ok() { # WHAT COMMAND...: counts
  local what=$1; shift
  if "$@" >"$work/out" 2>&1; then passed=$((passed + 1)); echo "ok      $what"
  else failed=$((failed + 1)); echo "FAILED  $what"; tail -n 5 "$work/out"; fi
}
no() { ! "$@"; }

# The commands, with nothing but their placeholders filled in.
filled() {
  sed -e 's/<client_cert_name>/client/g; s/<client_cert_key>/client/g; s/<client_name>/'"$2"'/g' \
    -e 's/<client_id>/meter/g; s/<client_secret>/'"$3"'/g' \
    -e 's/{domain_id}/3c2f/g; s/{channel_id}/7a91/g; s/<domain_id>/3c2f/g; s/<channel_id>/7a91/g' "$1"
}
publishes() { [ "$(filled $fixtures/publish.sh x "$secret" | sed "$1" | bash | awk 'NR == 1 { print $2 }')" = "$2" ]; }
mqtt_publishes() { bash -c "$(filled $fixtures/mosquitto_pub.sh "pub$RANDOM" "$1")"; }
hears() { # PROGRAM: it hears a publication within ten seconds
  : > "$work/heard"
  "$@" > "$work/heard" 2>&1 &
  local listener=$! i
  for i in $(seq 50); do
    publishes "$authorize" 202 && mqtt_publishes "$secret" || break
    grep -qE 'voltage|76 6f 6c|Buffer 5b' "$work/heard" && break
    sleep 0.2
  done
  kill $listener 2>/dev/null; wait $listener 2>/dev/null || true
  grep -qE 'voltage|76 6f 6c|Buffer 5b' "$work/heard" || { cat "$work/heard"; false; }
}
subscriber() { exec bash -c "exec stdbuf -oL $(filled $fixtures/mosquitto_sub.sh sub "$secret")"; }
websocket() {
  node -e '
    const fs = require("fs");
    const certs = "docker/ssl/certs/";
    let text = fs.readFileSync(process.argv[1], "utf8");
    text = text.replace("-----BEGIN CERTIFICATE-----....", fs.readFileSync(certs + "client.crt", "utf8"))
               .replace("-----BEGIN RSA PRIVATE KEY-----.....", fs.readFileSync(certs + "client.key", "utf8"))
               .replaceAll("<domain_id>", "3c2f").replaceAll("<channel_id>", "7a91").replaceAll("<client_secret>", process.argv[2]);
    fs.writeFileSync(process.argv[3], text);' $fixtures/websocket.js "$secret" "$work/websocket.js"
  NODE_PATH=tests/clients/node_modules exec node "$work/websocket.js"
}

for mode in x509 key; do
  down
  up $mode
  for _ in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/443) 2>/dev/null && break; sleep 0.2; done
  ok "$mode: the container is well" $compose -f docker/docker-compose.yml exec -T portcullis \
    portcullis healthcheck --config /etc/portcullis/config.toml
  authorize=
  [ $mode = x509 ] || authorize="s/-X POST/-H 'Authorization: Client $secret' -X POST/"
  ok "$mode: curl publishes" publishes "$authorize" 202
  ok "$mode: mosquitto_pub publishes" mqtt_publishes "$secret"
  ok "$mode: mosquitto_sub receives" hears subscriber
  ok "$mode: the Node program receives" hears websocket
  if [ $mode = x509 ]; then
    ok "$mode: curl with another secret is refused" publishes "s/-X POST/-H 'Authorization: Client x' -X POST/" 403
    ok "$mode: mosquitto_pub with another secret is refused" no mqtt_publishes another
  else
    ok "$mode: curl without a secret is refused" publishes "" 401
  fi
done
printf '\n%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
