#!/usr/bin/env bash
# certificates.sh ca | server_cert | client_cert: see the Makefile beside it, which sets every
# variable. All certificates are X.509 version 3, with what RFC 5280 asks of each kind. Everything is
# checked first and made in a folder aside, so that a refusal leaves nothing behind.
set -euo pipefail
export LC_ALL=C # lengths are bytes, in every locale

what=${1:?usage: certificates.sh ca|server_cert|client_cert}
fail() { echo "$what: $1" >&2; exit 1; }

ca() {
  local subject
  [ -n "$CN" ] || fail "CN is empty"
  # A server's CN is the same one unless somebody chooses another. Two certificates of one name are
  # told apart by their key identifiers, but not every client looks at those.
  subject=$(subject CN; echo "dnQualifier = CA")
  if [ -e "$dir/ca.key" ] || [ -e "$dir/ca.crt" ]; then
    [ "$FORCE" = 1 ] || fail "$dir has an authority already; a new one would lock out every device it has signed. Remove ca.crt and ca.key first, or say FORCE=1"
    echo "$what: what the former authority has signed is trusted no more: make it anew" >&2
  fi
  prepare "$subject" \
    "basicConstraints = critical, CA:TRUE" \
    "keyUsage = critical, keyCertSign, cRLSign" \
    "subjectKeyIdentifier = hash"
  key 3072
  run req -x509 -new -sha256 -config "$scratch/cnf" -extensions extensions -key "$scratch/key" \
    -set_serial "$(serial)" -days 1095 -out "$scratch/crt"
  publish ca
}

server_cert() {
  local subject names usage=digitalSignature
  [ -n "$CN" ] || fail "CN is empty"
  subject=$(subject CN)
  names=$(alternative_names)
  [ "$KEY_TYPE" = ecdsa ] || usage="$usage, keyEncipherment" # RSA key exchange of TLS 1.2
  authority
  prepare "$subject" \
    "basicConstraints = critical, CA:FALSE" \
    "keyUsage = critical, $usage" \
    "extendedKeyUsage = serverAuth" \
    "subjectAltName = $names" \
    "subjectKeyIdentifier = hash" \
    "authorityKeyIdentifier = keyid:always"
  issue portcullis-server 1000
}

client_cert() {
  local subject
  case $CLIENT_SECRET in *[![:space:]]*) ;; *) fail "CLIENT_SECRET is empty" ;; esac
  case $CLIENT_SECRET in [[:space:]]* | *[[:space:]]) fail "CLIENT_SECRET begins or ends with white space" ;; esac
  case $CRT_FILE_NAME in "" | */* | ca | portcullis-server) fail "CRT_FILE_NAME cannot be \"$CRT_FILE_NAME\"" ;; esac
  subject=$(subject CLIENT_SECRET)
  authority
  prepare "$subject" \
    "basicConstraints = critical, CA:FALSE" \
    "keyUsage = critical, digitalSignature" \
    "extendedKeyUsage = clientAuth" \
    "subjectKeyIdentifier = hash" \
    "authorityKeyIdentifier = keyid:always"
  issue "$CRT_FILE_NAME" 730
}

# subject VARIABLE: the lines of a subject whose common name is in VARIABLE.
subject() {
  attribute CN "$1" common-name
  attribute O O organization-name
  attribute OU OU organizational-unit-name
  attribute emailAddress emailAddress emailaddress-length 128
}

# attribute NAME VARIABLE BOUND [BYTES]: one line; none if the variable is empty.
attribute() {
  local value=${!2} most=${4:-64}
  [ -n "$value" ] || return 0
  case $value in *[[:cntrl:]]*) fail "$2 holds a control character" ;; esac
  [ "${#value}" -le "$most" ] || fail "$2 is longer than $most bytes, the most for it in X.509 (ub-$3)"
  # What has a meaning in a configuration file of OpenSSL is escaped.
  printf '%s = %s\n' "$1" "$(printf '%s' "$value" | sed -e 's/[\\"`$#;'"'"']/\\&/g' -e 's/^ /\\ /' -e 's/ $/\\ /')"
}

# The names under which the server is reached: CN, and this machine's own.
alternative_names() {
  local own='DNS:localhost, IP:127.0.0.1, IP:::1'
  case $CN in
    localhost | 127.0.0.1 | ::1) echo "$own" ;;
    *[!A-Za-z0-9.:*_-]*) fail "CN must be a host name or an address, not \"$CN\"" ;;
    *:*) echo "IP:$CN, $own" ;;
    *[!0-9.]*) echo "DNS:$CN, $own" ;;
    *) echo "IP:$CN, $own" ;;
  esac
}

authority() {
  local certified own
  [ -s "$dir/ca.crt" ] && [ -s "$dir/ca.key" ] || fail "there is no authority in $dir: run make ca first"
  certified=$(openssl x509 -in "$dir/ca.crt" -noout -pubkey 2>/dev/null) || fail "$dir/ca.crt is not a certificate"
  own=$(openssl pkey -in "$dir/ca.key" -pubout 2>/dev/null) || fail "$dir/ca.key is not a private key"
  [ "$certified" = "$own" ] || fail "ca.key is not the key of ca.crt in $dir"
}

# prepare SUBJECT EXTENSION...: the folder for what is being made, with OpenSSL's configuration.
prepare() {
  local subject=$1
  shift
  mkdir -p "$dir"
  umask 077
  scratch=$(mktemp -d "$dir/.making.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  {
    printf '[req]\nprompt = no\nutf8 = yes\nstring_mask = utf8only\ndistinguished_name = subject\n'
    printf '[subject]\n%s\n[extensions]\n' "$subject"
    printf '%s\n' "$@"
  } > "$scratch/cnf"
}

# key RSA-BITS
key() {
  case $KEY_TYPE in
    ecdsa) run genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$scratch/key" ;;
    rsa) run genpkey -algorithm RSA -pkeyopt "rsa_keygen_bits:$1" -out "$scratch/key" ;;
  esac
}

# issue NAME DAYS: a new key, and its certificate from the authority.
issue() {
  key 2048
  run req -new -sha256 -config "$scratch/cnf" -key "$scratch/key" -out "$scratch/csr"
  run x509 -req -sha256 -in "$scratch/csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
    -set_serial "$(serial)" -days "$2" -extfile "$scratch/cnf" -extensions extensions -out "$scratch/crt"
  publish "$1"
}

# 128 bits, of which 124 are random: the highest must be 0, since a serial number is positive, and
# another one set, so that all have one length (RFC 5280 §4.1.2.2).
serial() { printf '0x4%s' "$(openssl rand -hex 16 | cut -c2-)"; }

# The key before the certificate: whoever sees the certificate finds its key.
publish() {
  chmod 644 "$scratch/crt"
  mv -fT "$scratch/key" "$dir/$1.key"
  mv -fT "$scratch/crt" "$dir/$1.crt"
  echo "made $1.crt and $1.key in $dir"
}

run() { openssl "$@" 2> "$scratch/log" || fail "OpenSSL refuses: $(cat "$scratch/log")"; }

command -v openssl >/dev/null || fail "openssl is not installed"
[ -n "$CRT_LOCATION" ] || fail "CRT_LOCATION is empty"
dir=$(readlink -m -- "$CRT_LOCATION")
case $KEY_TYPE in ecdsa | rsa) ;; *) fail "KEY_TYPE must be ecdsa or rsa, not \"$KEY_TYPE\"" ;; esac
case $what in ca | server_cert | client_cert) "$what" ;; *) fail "no such command" ;; esac
