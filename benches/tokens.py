#!/usr/bin/env python3
"""tokens.py OUTDIR [COUNT] : keys and tokens for the token cells, made once.

Of each algorithm one token, OUTDIR/<algorithm>.jwt, and the public keys, OUTDIR/<algorithm>.pem and
OUTDIR/jwks.json; and COUNT (1,000,000) tokens of different subjects, a line each, OUTDIR/many.jwt."""
import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import sys
import time

out = pathlib.Path(sys.argv[1])
count = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
SECRET = b"an example for the benchmark, which is longer than 64 bytes, as HS512 wants"
EXPIRES = int(time.time()) + 10 * 365 * 86400
NEW_KEY = {
    "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "EdDSA": ["-algorithm", "ed25519"],
}


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, data=b""):
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


def integers(der):
    """The two of a SEQUENCE, as ECDSA's signatures have them."""
    first = der[4 : 4 + der[3]]
    return first, der[4 + der[3] + 2 :]


def signature(algorithm, key, message):
    if algorithm == "EdDSA":
        text = out / "message"
        text.write_bytes(message)
        return openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", str(text))
    signed = openssl("dgst", "-sha256", "-sign", key, data=message)
    if algorithm == "RS256":
        return signed
    return b"".join(part.lstrip(b"\0").rjust(32, b"\0") for part in integers(signed))


def unsigned(algorithm, subject):
    header = {"alg": algorithm, "typ": "JWT"}
    claims = {"iss": f"https://{algorithm.lower()}.example.com", "sub": subject, "exp": EXPIRES}
    return ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))


def jwk(algorithm, public):
    """The public key as Envoy takes it."""
    if algorithm == "RS256":
        # SubjectPublicKeyInfo of a 2048 bit key: the modulus stands before INTEGER 65537.
        return {"kty": "RSA", "n": encode(public[-5 - 256 : -5]), "e": "AQAB"}
    if algorithm == "ES256":
        return {"kty": "EC", "crv": "P-256", "x": encode(public[-64:-32]), "y": encode(public[-32:])}
    return {"kty": "OKP", "crv": "Ed25519", "x": encode(public[-32:])}


def hs512(subject):
    message = unsigned("HS512", subject)
    return f"{message}.{encode(hmac.digest(SECRET, message.encode(), hashlib.sha512))}"


out.mkdir(parents=True, exist_ok=True)
keys = [{"kty": "oct", "alg": "HS512", "k": encode(SECRET)}]
for algorithm, options in NEW_KEY.items():
    key = str(out / f"{algorithm}.key")
    openssl("genpkey", *options, "-out", key)
    (out / f"{algorithm}.pem").write_bytes(openssl("pkey", "-in", key, "-pubout"))
    public = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")
    keys.append({"alg": algorithm, **jwk(algorithm, public)})
    message = unsigned(algorithm, "device-1")
    token = f"{message}.{encode(signature(algorithm, key, message.encode()))}"
    (out / f"{algorithm}.jwt").write_text(token)
(out / "jwks.json").write_text(json.dumps({"keys": keys}))
(out / "secret").write_bytes(SECRET)
(out / "HS512.jwt").write_text(hs512("device-1"))
with open(out / "many.jwt.new", "w") as many:
    many.writelines(f"{hs512(f'device-{number}')}\n" for number in range(count))
(out / "many.jwt.new").rename(out / "many.jwt")
