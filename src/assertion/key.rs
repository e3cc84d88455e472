//! [`SigningKey`]: a private key with the one algorithm that it is for.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use thiserror::Error;

/// Why a key signs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningKeyError {
    /// No PEM block of a private key, or several.
    #[error("not a PEM file of one private key (BEGIN PRIVATE KEY)")]
    NotPem,
    /// The key is of another kind, or damaged.
    #[error("the key is damaged, or neither Ed25519 nor of the curve P-256")]
    Unusable,
    /// No random numbers are to be had.
    #[error("no random numbers are to be had")]
    NoRandomness,
}

/// A key that signs.
pub(super) struct SigningKey {
    pair: Pair,
    /// RFC 7638.
    id: String,
    jwk: Value,
    /// The JOSE header, as it begins every token.
    header: String,
}

enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads the one private key of a PEM file.
    pub(super) fn of_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        let mut blocks = PrivateKeyDer::pem_slice_iter(pem);
        let (Some(Ok(der)), None) = (blocks.next(), blocks.next()) else {
            return Err(SigningKeyError::NotPem);
        };
        let pair = Pair::of_der(&der).ok_or(SigningKeyError::Unusable)?;
        pair.named().ok_or(SigningKeyError::Unusable)
    }

    /// A new key (ES256), which is nowhere but here.
    pub(super) fn make() -> Result<Self, SigningKeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.ok().map(Pair::Es256);
        pair.and_then(Pair::named)
            .ok_or(SigningKeyError::NoRandomness)
    }

    /// Its thumbprint, by which tokens name it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its public part (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// `claims` as a JWT in compact form (RFC 7515 §7.1). `None` without random numbers.
    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let mut token = self.header.clone();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = match &self.pair {
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), token.as_bytes()),
            Pair::EdDsa(pair) => pair.try_sign(token.as_bytes()),
        };
        let signature = signature.ok()?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Some(token)
    }
}

impl Pair {
    fn of_der(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let (bytes, algorithm) = (der.secret_der(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        match der {
            PrivateKeyDer::Pkcs8(_) => {
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, bytes).map(Self::Es256);
                let other = || Ed25519KeyPair::from_pkcs8(bytes).map(Self::EdDsa);
                pair.or_else(|_| other()).ok()
            }
            PrivateKeyDer::Sec1(_) => {
                let pair = EcdsaKeyPair::from_private_key_der(algorithm, bytes);
                pair.ok().map(Self::Es256)
            }
            _ => None,
        }
    }

    /// `None` if it has no public part in the form that its algorithm knows.
    fn named(self) -> Option<SigningKey> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // RFC 7638 §3.2: what a thumbprint is made of, in the order of the names.
        let (algorithm, mut jwk) = match &self {
            Self::Es256(pair) => {
                // An uncompressed point (SEC 1 §2.3.3).
                let point = pair.public_key().as_ref().strip_prefix(&[4])?;
                let (x, y) = point.split_at_checked(32)?;
                let (x, y) = (encode(x), encode(y));
                (
                    "ES256",
                    json!({"crv": "P-256", "kty": "EC", "x": x, "y": y}),
                )
            }
            Self::EdDsa(pair) => {
                let x = encode(pair.public_key().as_ref());
                ("EdDSA", json!({"crv": "Ed25519", "kty": "OKP", "x": x}))
            }
        };
        let thumbprint = digest::digest(&digest::SHA256, jwk.to_string().as_bytes());
        let id = encode(thumbprint.as_ref());
        jwk["alg"] = algorithm.into();
        jwk["use"] = "sig".into();
        jwk["kid"] = id.as_str().into();
        let header = json!({"alg": algorithm, "kid": id, "typ": "JWT"});
        Some(SigningKey {
            pair: self,
            id,
            jwk,
            header: encode(header.to_string().as_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_rfc_8037_has_the_thumbprint_and_the_signature_that_stand_there() {
        // RFC 8037 §A.1, with the beginning that RFC 8410 §7 gives such a key in PKCS #8.
        let private = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        let head = URL_SAFE_NO_PAD.decode("MC4CAQAwBQYDK2VwBCIEIA").unwrap();
        let pkcs8 = [head, private.unwrap()].concat();
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).unwrap();
        let key = Pair::EdDsa(pair).named().unwrap();
        let jwk = key.jwk();
        // §A.2, §A.3.
        assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        // §A.4; the signature is of the message alone.
        let Pair::EdDsa(pair) = &key.pair else {
            panic!("{jwk}")
        };
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        assert_eq!(
            URL_SAFE_NO_PAD.encode(pair.sign(message)),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }
}
