//! Signatures of certificates that have been found valid before. A device that comes back shows the same
//! chain, and whether an authority has signed it cannot change: the public-key operation, a fourth of a
//! handshake, is done once. All else of a path is checked each time (RFC 5280 §6), since time passes and
//! the checks cost little. The proof that a client holds its key is new with each handshake, and never
//! comes here.
//!
//! What is remembered is a hash over all that a verification depends on, and only if it succeeded: only an
//! authority that is trusted can fill the memory.

use aws_lc_rs::digest::{Context, SHA256};
use moka::sync::Cache;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// SHA-256 over the algorithms, the public key, the message and the signature.
type Digest = [u8; 32];

/// Of how many certificates it is remembered; who comes again after so many others is verified anew.
const MOST: u64 = 65_536;

/// Which signatures are valid.
#[derive(Debug)]
pub(super) struct KnownSignatures(Cache<Digest, ()>);

impl Default for KnownSignatures {
    fn default() -> Self {
        Self(Cache::new(MOST))
    }
}

/// An algorithm that is not asked twice about what it has found valid.
#[derive(Debug)]
pub(super) struct Remembering<'a> {
    pub(super) algorithm: &'a dyn SignatureVerificationAlgorithm,
    pub(super) known: &'a KnownSignatures,
}

impl SignatureVerificationAlgorithm for Remembering<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = self.digest(public_key, message, signature);
        if self.known.0.get(&digest).is_some() {
            return Ok(());
        }
        self.algorithm
            .verify_signature(public_key, message, signature)?;
        self.known.0.insert(digest, ());
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

impl Remembering<'_> {
    fn digest(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Digest {
        let (key_kind, kind) = (self.public_key_alg_id(), self.signature_alg_id());
        let mut context = Context::new(&SHA256);
        // With its length, so that no part can be taken for the end of another.
        for part in [
            key_kind.as_ref(),
            kind.as_ref(),
            public_key,
            message,
            signature,
        ] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Takes every signature that is the message backwards, and counts how often it is asked.
    #[derive(Debug)]
    struct Backwards {
        asked: AtomicUsize,
        kind: AlgorithmIdentifier,
    }

    impl Backwards {
        fn new(kind: AlgorithmIdentifier) -> Self {
            let asked = AtomicUsize::new(0);
            Self { asked, kind }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl SignatureVerificationAlgorithm for Backwards {
        fn verify_signature(
            &self,
            _: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if message.iter().rev().eq(signature) {
                Ok(())
            } else {
                Err(InvalidSignature)
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            self.kind
        }
    }

    fn remembering<'a>(algorithm: &'a Backwards, known: &'a KnownSignatures) -> Remembering<'a> {
        Remembering { algorithm, known }
    }

    #[test]
    fn a_valid_signature_is_verified_once() {
        let known = KnownSignatures::default();
        let algorithm = Backwards::new(alg_id::ECDSA_SHA256);
        let remembering = remembering(&algorithm, &known);
        for _ in 0..3 {
            assert!(remembering.verify_signature(b"key", b"abc", b"cba").is_ok());
        }
        assert_eq!(algorithm.asked(), 1);
    }

    #[test]
    fn an_invalid_signature_is_refused_each_time() {
        let known = KnownSignatures::default();
        let algorithm = Backwards::new(alg_id::ECDSA_SHA256);
        let remembering = remembering(&algorithm, &known);
        assert!(remembering.verify_signature(b"key", b"abc", b"cba").is_ok());
        for _ in 0..3 {
            assert!(
                remembering
                    .verify_signature(b"key", b"abc", b"abc")
                    .is_err()
            );
        }
        assert_eq!(algorithm.asked(), 4);
    }

    #[test]
    fn another_key_message_or_algorithm_is_another_signature() {
        let known = KnownSignatures::default();
        let algorithm = Backwards::new(alg_id::ECDSA_SHA256);
        let other = Backwards::new(alg_id::ECDSA_SHA384);
        let of = |algorithm| remembering(algorithm, &known);
        let cases: [(&[u8], &[u8], &[u8]); 4] = [
            (b"key", b"aa", b"aa"),
            (b"keys", b"aa", b"aa"),
            (b"key", b"a", b"a"),
            // The same bytes in the same order, cut elsewhere.
            (b"keya", b"a", b"a"),
        ];
        for (key, message, signature) in cases {
            let remembering = of(&algorithm);
            assert!(
                remembering
                    .verify_signature(key, message, signature)
                    .is_ok()
            );
        }
        assert_eq!(algorithm.asked(), cases.len());
        assert!(of(&other).verify_signature(b"key", b"aa", b"aa").is_ok());
        assert_eq!(other.asked(), 1);
    }
}
