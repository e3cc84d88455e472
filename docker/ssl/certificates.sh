#!/usr/bin/env bash
# certificates.sh ca | server_cert | client_cert: see the Makefile beside it, which sets every
# variable. All certificates are X.509 version 3, with what RFC 5280 asks of each kind.
set -euo pipefail

fail() { echo "$1: $2" >&2; exit 1; }
what=${1:?usage: certificates.sh ca|server_cert|client_cert}
command -v openssl >/dev/null || fail "$what" "openssl is not installed"
mkdir -p "$(readlink -m "$CRT_LOCATION")"
dir=$(cd "$CRT_LOCATION" && pwd)
umask 077
scratch=$(mktemp -d "$dir/.making.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# A value as a line of an OpenSSL configuration file: what has a meaning there is escaped.
quoted() { printf '%s' "$1" | sed -e 's/[\\"`$#;'"'"']/\\&/g' -e 's/^ /\\ /' -e 's/ $/\\ /'; }

# subject CN OU: writes $scratch/request.cnf; an empty attribute is left out.
subject() {
  local name value
  for name in CN O OU emailAddress; do
    case $name in CN) value=$1 ;; OU) value=$2 ;; *) value=${!name} ;; esac
    case $value in *[[:cntrl:]]*) fail "$what" "$name holds a control character" ;; esac
  done
  {
    printf '[req]\nprompt = no\nutf8 = yes\nstring_mask = utf8only\ndistinguished_name = subject\n[subject]\n'
    printf 'CN = %s\n' "$(quoted "$1")"
    [ -z "$O" ] || printf 'O = %s\n' "$(quoted "$O")"
    [ -z "$2" ] || printf 'OU = %s\n' "$(quoted "$2")"
    [ -z "$emailAddress" ] || printf 'emailAddress = %s\n' "$(quoted "$emailAddress")"
  } > "$scratch/request.cnf"
}

# key FILE RSA_BITS
key() {
  case $KEY_TYPE in
    ecdsa) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" ;;
    rsa) openssl genpkey -quiet -algorithm RSA -pkeyopt "rsa_keygen_bits:$2" -out "$1" ;;
    *) fail "$what" "KEY_TYPE must be ecdsa or rsa, not \"$KEY_TYPE\"" ;;
  esac
}

# issue NAME DAYS: signs $scratch/key by the authority with the extensions in $scratch/ext.cnf.
issue() {
  [ -s "$dir/ca.crt" ] && [ -s "$dir/ca.key" ] || fail "$what" "there is no authority in $dir: run make ca first"
  openssl req -new -sha256 -config "$scratch/request.cnf" -key "$scratch/key" -out "$scratch/csr"
  openssl x509 -req -sha256 -in "$scratch/csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
    -set_serial "0x$(serial)" -days "$2" -extfile "$scratch/ext.cnf" -out "$scratch/crt" 2>"$scratch/log" ||
    fail "$what" "$(cat "$scratch/log")"
  publish "$1"
}

# 128 random bits; the first is 0, since a serial number is positive (RFC 5280 §4.1.2.2).
serial() { printf '4%s' "$(openssl rand -hex 16 | cut -c2-)"; }

# The key before the certificate: whoever sees the certificate finds its key.
publish() {
  chmod 644 "$scratch/crt"
  mv "$scratch/key" "$dir/$1.key"
  mv "$scratch/crt" "$dir/$1.crt"
  echo "made $1.crt and $1.key in $dir"
}

# Names under which the server is reached: CN, and this machine's own.
alternative_names() {
  local name names='DNS:localhost,IP:127.0.0.1,IP:::1'
  case $CN in
    localhost | 127.0.0.1 | ::1) name= ;;
    *:*) name=IP:$CN ;;
    *[!0-9.]*) name=DNS:$CN ;;
    *) name=IP:$CN ;;
  esac
  case $CN in *[!A-Za-z0-9.:*_-]*) fail "$what" "CN must be a host name or an address, not \"$CN\"" ;; esac
  echo "${name:+$name,}$names"
}

case $what in
  ca)
    [ ! -e "$dir/ca.key" ] && [ ! -e "$dir/ca.crt" ] ||
      fail ca "$dir has an authority already; a new one would lock out every device it has signed. Remove ca.crt and ca.key first"
    [ -n "$CN" ] || fail ca "CN is empty"
    # Told apart from the server's subject, which has the same CN unless somebody chooses one.
    subject "$CN" "${OU:+${OU}_ca}"
    printf '[ext]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n' >> "$scratch/request.cnf"
    key "$scratch/key" 3072
    openssl req -x509 -new -sha256 -config "$scratch/request.cnf" -extensions ext -key "$scratch/key" \
      -set_serial "0x$(serial)" -days 1095 -out "$scratch/crt"
    publish ca
    ;;
  server_cert)
    [ -n "$CN" ] || fail server_cert "CN is empty"
    names=$(alternative_names)
    subject "$CN" "$OU"
    printf 'basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature, keyEncipherment\nextendedKeyUsage = serverAuth\nsubjectAltName = %s\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n' "$names" > "$scratch/ext.cnf"
    [ "$KEY_TYPE" != ecdsa ] || sed -i 's/, keyEncipherment//' "$scratch/ext.cnf"
    key "$scratch/key" 2048
    issue portcullis-server 1000
    ;;
  client_cert)
    case $CLIENT_SECRET in *[![:space:]]*) ;; *) fail client_cert "CLIENT_SECRET is empty" ;; esac
    case $CLIENT_SECRET in [[:space:]]* | *[[:space:]]) fail client_cert "CLIENT_SECRET begins or ends with white space" ;; esac
    [ "${#CLIENT_SECRET}" -le 64 ] || fail client_cert "CLIENT_SECRET is longer than the 64 characters of an X.509 common name (RFC 5280, ub-common-name)"
    case $CRT_FILE_NAME in "" | */* | ca | portcullis-server) fail client_cert "CRT_FILE_NAME cannot be \"$CRT_FILE_NAME\"" ;; esac
    subject "$CLIENT_SECRET" "$OU"
    printf 'basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n' > "$scratch/ext.cnf"
    key "$scratch/key" 2048
    issue "$CRT_FILE_NAME" 730
    ;;
  *) fail certificates.sh "unknown command \"$what\"" ;;
esac
