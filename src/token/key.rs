//! [`Key`]: a key and the one algorithm, or the few, that it is for (RFC 8725 §3.1).
//!
//! A public key is parsed when it is loaded, not when it is needed: one that no token could ever be
//! verified with stops the start, where skipping it would let tokens through unread elsewhere.

use std::fmt::{self, Write as _};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::secret::Secret;

/// How a token is signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the names of the registry")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// All of them, by their registered names.
    pub const ALL: &[(&str, Self)] = &[
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
        // RFC 9864 gives Ed25519 a name of its own.
        ("Ed25519", Self::EdDsa),
    ];

    /// The algorithm of this name; names are exact.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, algorithm)| *algorithm)
    }

    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, algorithm)| *algorithm == self);
        known.map_or("", |(name, _)| name)
    }

    /// Whether both sides hold the same secret.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self.hmac().is_some()
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            Self::Rs256
            | Self::Rs384
            | Self::Rs512
            | Self::Ps256
            | Self::Ps384
            | Self::Ps512
            | Self::Es256
            | Self::Es384
            | Self::EdDsa => None,
        }
    }

    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Some(&ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Some(&ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Some(&ED25519),
        }
    }
}

/// Why a key verifies nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The secret can be guessed.
    #[error("the secret is shorter than 32 bytes, so it can be guessed (RFC 7518 §3.2)")]
    Short,
    /// The secret is known to everybody.
    #[error(
        "the secret is refused: it is the published default of {0}, so anyone can issue tokens \
         with it"
    )]
    Published(&'static str),
    /// What is not secret would be used as one.
    #[error("the secret is a PEM block: a public key proves nothing as a secret")]
    PemAsSecret,
    /// No PEM block of a public key (`BEGIN PUBLIC KEY`).
    #[error("not a PEM file of one public key (BEGIN PUBLIC KEY)")]
    NotPem,
    /// The key is damaged, too short (RSA below 2048 bits), or of another kind than its algorithm.
    #[error("the key is damaged, too short or not one for {}", .0.name())]
    Unusable(Algorithm),
    /// A secret for signatures, or a public key for a MAC.
    #[error("{} is not an algorithm for a key of this kind", .0.name())]
    Algorithm(Algorithm),
}

/// SHA-256 of shared secrets that stand in public source repositories, with the place.
const PUBLISHED_SECRETS: [(&str, &str); 1] = [(
    "9061a9cf5653e0cb850b20ab554dfdc3057cad32765fd9eb995bd90c526b5ddf",
    "absmach/supermq and absmach/magistrala, docker/.env",
)];

/// The fewest bytes of a shared secret. RFC 7518 §3.2 asks for as many as the hash has; the
/// platform's own are shorter than SHA-512's, so those are warned of, not refused.
const MIN_SECRET: usize = 32;

/// A key and what it is for.
#[derive(Debug)]
pub(super) struct Key {
    /// Its id, which a token has to name; `None` is for any token.
    pub(super) id: Option<String>,
    material: Vec<Material>,
}

/// A key, ready for one algorithm.
enum Material {
    Secret(Algorithm, Box<hmac::Key>),
    Public(Algorithm, ParsedPublicKey),
}

impl Key {
    /// A secret that is shared with the issuer.
    pub(super) fn shared(
        id: Option<String>,
        secret: &Secret,
        algorithm: Algorithm,
    ) -> Result<Self, KeyError> {
        let bytes = secret.expose().as_bytes();
        if let Some(place) = published(bytes) {
            return Err(KeyError::Published(place));
        }
        if secret.expose().contains("-----BEGIN") {
            return Err(KeyError::PemAsSecret);
        }
        if bytes.len() < MIN_SECRET {
            return Err(KeyError::Short);
        }
        Self::of_bytes(id, bytes, algorithm)
    }

    pub(super) fn of_bytes(
        id: Option<String>,
        bytes: &[u8],
        algorithm: Algorithm,
    ) -> Result<Self, KeyError> {
        let hmac = algorithm.hmac().ok_or(KeyError::Algorithm(algorithm))?;
        let key = Box::new(hmac::Key::new(hmac, bytes));
        Ok(Self {
            id,
            material: vec![Material::Secret(algorithm, key)],
        })
    }

    /// A public key out of a PEM file, for each of `algorithms`.
    pub(super) fn of_pem(pem: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let mut blocks = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
        let (Some(Ok(der)), None) = (blocks.next(), blocks.next()) else {
            return Err(KeyError::NotPem);
        };
        Self::public(None, &der, algorithms)
    }

    /// A public key in a form that its algorithm knows, for each of `algorithms`.
    pub(super) fn public(
        id: Option<String>,
        bytes: &[u8],
        algorithms: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let parse = |algorithm: &Algorithm| {
            let verification = algorithm
                .verification()
                .ok_or(KeyError::Algorithm(*algorithm))?;
            let key = ParsedPublicKey::new(verification, bytes).ok();
            let key = key
                .filter(is_long_enough)
                .ok_or(KeyError::Unusable(*algorithm))?;
            Ok(Material::Public(*algorithm, key))
        };
        let material = algorithms.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { id, material })
    }

    /// Whether it is for `algorithm`, and no other may be tried.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.material(algorithm).is_some()
    }

    /// Whether `signature` is its signature of `message`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self.material(algorithm) {
            None => false,
            Some(Material::Secret(_, key)) => hmac::verify(key, message, signature).is_ok(),
            Some(Material::Public(_, key)) => key.verify_sig(message, signature).is_ok(),
        }
    }

    fn material(&self, wanted: Algorithm) -> Option<&Material> {
        self.material.iter().find(|material| match material {
            Material::Secret(algorithm, _) | Material::Public(algorithm, _) => *algorithm == wanted,
        })
    }
}

/// RFC 7518 §3.3: RSA keys have at least 2048 bits. The library would parse a shorter one, and then
/// verify nothing with it.
fn is_long_enough(key: &ParsedPublicKey) -> bool {
    let Ok(der) = key.as_der() else {
        return false;
    };
    let parsed = SubjectPublicKeyInfo::from_der(der.as_ref());
    match parsed.as_ref().map(|(_, info)| info.parsed()) {
        Ok(Ok(PublicKey::RSA(key))) => key.key_size() >= 2048,
        Ok(Ok(_)) => true,
        Ok(Err(_)) | Err(_) => false,
    }
}

fn published(secret: &[u8]) -> Option<&'static str> {
    let mut digest = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, secret).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    let known = PUBLISHED_SECRETS.iter().find(|(known, _)| *known == digest);
    known.map(|(_, place)| *place)
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(algorithm, _) => write!(f, "Secret({algorithm:?}, …)"),
            Self::Public(algorithm, _) => write!(f, "Public({algorithm:?}, …)"),
        }
    }
}
