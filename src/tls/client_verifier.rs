//! The check of a client's chain: signatures, issuers, validity, purpose, depth (RFC 5280 §6), by
//! webpki; and, where the operator allows it, of the version 1 certificates that older fleets hold.
//!
//! Revocation and identity are other rooms' matters. Nothing here reads a name for its meaning.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
    OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::peer::VerifiedPeer;
use super::signatures::{KnownSignatures, Remembering};
use super::trust::Trust;

/// A client certificate that was refused, named by its fingerprint because its subject may hold a
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("client certificate {fingerprint} refused: {reason}")]
pub struct ClientCertificateError {
    /// SHA-256 of the certificate's DER, lowercase hexadecimal.
    pub fingerprint: String,
    /// What is wrong with it.
    #[source]
    pub reason: Reason,
}

/// What is wrong with a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// X.509 version 1 while `tls.legacy_certificates` is off.
    #[error("it is X.509 version 1; set tls.legacy_certificates = true to accept such devices")]
    Version1,
    /// No extended key usage at all while `tls.legacy_certificates` is off.
    #[error(
        "it has no extended key usage clientAuth; set tls.legacy_certificates = true to accept \
         certificates without one"
    )]
    NoUsage,
    /// It has an extended key usage, and client authentication is not in it (RFC 5280 §4.2.1.12).
    #[error("its extended key usage does not include clientAuth")]
    WrongUsage,
    /// `CA:TRUE`: an authority's certificate identifies no device.
    #[error("it is a certificate authority's own")]
    Authority,
    /// Past its notAfter.
    #[error("it has expired")]
    Expired,
    /// Before its notBefore.
    #[error("it is not yet valid")]
    NotYetValid,
    /// No configured authority has issued it.
    #[error("no authority in tls.client_ca has issued it")]
    UnknownIssuer,
    /// A signature of the chain does not verify.
    #[error("its signature or its issuer's is not valid")]
    BadSignature,
    /// An algorithm or key size that is not accepted (RSA below 2048 bits, SHA-1, unknown curves).
    #[error("its key or signature algorithm is not accepted")]
    UnsupportedAlgorithm,
    /// More intermediates than `tls.max_chain_depth`.
    #[error("its chain is longer than tls.max_chain_depth allows")]
    TooDeep,
    /// Its connection outlived the policy that had accepted it.
    #[error("its TLS policy no longer exists, or no longer asks for certificates")]
    NotAskedFor,
    /// Not an X.509 certificate that can be read.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Another rule of path validation (name or path length constraints, critical extensions).
    #[error("path validation failed: {0}")]
    Path(String),
}

tokio::task_local! {
    /// What was wrong with the client's certificate of the handshake under way: rustls takes no error but
    /// its own, and one that has an alert to its name has no room for ours.
    static REFUSAL: RefCell<Option<ClientCertificateError>>;
}

/// Carries out a handshake, and yields beside its outcome what was wrong with the client's certificate, if
/// anything was.
pub(super) async fn watch<F: Future>(handshake: F) -> (F::Output, Option<ClientCertificateError>) {
    let watched = async {
        let outcome = handshake.await;
        (outcome, REFUSAL.with(RefCell::take))
    };
    REFUSAL.scope(RefCell::default(), watched).await
}

/// The rules of one policy.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) trust: Trust,
    pub(super) hints: Vec<DistinguishedName>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) known: KnownSignatures,
    pub(super) mandatory: bool,
    pub(super) legacy: bool,
    pub(super) max_depth: usize,
}

impl ClientVerifier {
    /// Checks a chain from the leaf to a configured authority at `now`.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), ClientCertificateError> {
        self.check_chain(leaf, intermediates, now)
            .map_err(|reason| refused(leaf, reason))
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Reason> {
        let parsed = parse(leaf)?;
        if parsed.version() == X509Version::V1 {
            return self.check_version_1(&parsed, now);
        }
        self.check_path(leaf, intermediates, now)?;
        // webpki lets a leaf without the extension pass for any purpose.
        let has_usage = matches!(parsed.extended_key_usage(), Ok(Some(_)));
        if has_usage || self.legacy {
            Ok(())
        } else {
            Err(Reason::NoUsage)
        }
    }

    fn check_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Reason> {
        let within_depth = |path: &webpki::VerifiedPath<'_>| {
            if path.intermediate_certificates().count() <= self.max_depth {
                Ok(())
            } else {
                Err(webpki::Error::MaximumPathDepthExceeded)
            }
        };
        let remember = |algorithm: &&'static _| Remembering {
            algorithm: *algorithm,
            known: &self.known,
        };
        let algorithms: Vec<_> = self.algorithms.all.iter().map(remember).collect();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            algorithms.iter().map(|one| one as _).collect();
        EndEntityCert::try_from(leaf)
            .and_then(|end_entity| {
                end_entity
                    .verify_for_usage(
                        &algorithms,
                        &self.trust.roots.roots,
                        intermediates,
                        now,
                        KeyUsage::client_auth(),
                        None,
                        Some(&within_depth),
                    )
                    .map(drop)
            })
            .map_err(Reason::from)
    }

    /// Accepts a version 1 leaf signed directly by a configured authority. Version 1 has no
    /// extensions, so the leaf can claim neither a purpose nor to be an authority, and nothing but
    /// an authority of version 3 (see `Trust`) may have issued it.
    fn check_version_1(&self, leaf: &X509Certificate<'_>, now: UnixTime) -> Result<(), Reason> {
        if !self.legacy {
            return Err(Reason::Version1);
        }
        // RFC 5280 §4.1.2.9: only version 3 has extensions. Nothing below would read them, so
        // CA:TRUE or another purpose would pass as if it had not been said.
        if !leaf.extensions().is_empty() {
            return Err(Reason::Malformed("extensions in version 1".into()));
        }
        within_validity(leaf, now.as_secs())?;
        // RFC 5280 §4.1.1.2: the signed and the unsigned copy must agree.
        if leaf.signature_algorithm != leaf.tbs_certificate.signature {
            return Err(Reason::Malformed("two signature algorithms".into()));
        }
        let mut outcome = Err(Reason::UnknownIssuer);
        for authority in &self.trust.authorities {
            let authority = parse(authority)?;
            if authority.subject().as_raw() == leaf.issuer().as_raw() {
                outcome = self.check_issued_by(leaf, &authority, now);
            }
            if outcome.is_ok() {
                return Ok(());
            }
        }
        outcome
    }

    fn check_issued_by(
        &self,
        leaf: &X509Certificate<'_>,
        authority: &X509Certificate<'_>,
        now: UnixTime,
    ) -> Result<(), Reason> {
        within_validity(authority, now.as_secs()).map_err(|_| Reason::UnknownIssuer)?;
        let may_sign = authority
            .key_usage()
            .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        if !may_sign {
            return Err(Reason::UnknownIssuer);
        }
        let scheme = scheme_of(&leaf.signature_algorithm.algorithm)?;
        let public_key = SubjectPublicKeyInfoDer::from(authority.public_key().raw);
        let signature = leaf.signature_value.as_ref();
        self.verify_by_key(
            &public_key,
            scheme,
            leaf.tbs_certificate.as_ref(),
            signature,
        )
        .map_err(Reason::from)
    }

    /// Verifies `signature` by whichever algorithm of `scheme` fits the key.
    fn verify_by_key(
        &self,
        public_key: &SubjectPublicKeyInfoDer<'_>,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), webpki::Error> {
        let key = RawPublicKeyEntity::try_from(public_key)?;
        let algorithms = self
            .algorithms
            .mapping
            .iter()
            .find(|(known, _)| *known == scheme)
            .map_or(&[][..], |(_, algorithms)| algorithms);
        let mut outcome = Err(webpki::Error::SignatureAlgorithmMismatch);
        for algorithm in algorithms {
            outcome = key.verify_signature(*algorithm, message, signature);
            let wrong_kind_of_key = matches!(
                outcome,
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_))
            );
            if !wrong_kind_of_key {
                break;
            }
        }
        outcome
    }

    /// Takes the chain of an established session, checking once more what time changes.
    pub(super) fn established(
        &self,
        chain: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<VerifiedPeer, ClientCertificateError> {
        let missing = || ClientCertificateError {
            fingerprint: String::new(),
            reason: Reason::Malformed("an empty chain".into()),
        };
        let leaf = chain.first().ok_or_else(missing)?;
        let parsed = parse(leaf).map_err(|reason| refused(leaf, reason))?;
        within_validity(&parsed, now).map_err(|reason| refused(leaf, reason))?;
        Ok(VerifiedPeer {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            fingerprint: fingerprint(leaf).into(),
            subject: parsed.subject().as_raw().to_vec(),
            not_after: seconds(parsed.validity().not_after.timestamp()),
        })
    }

    /// Checks a peer that another policy accepted against this one.
    pub(super) fn check_again(
        &self,
        peer: &VerifiedPeer,
        now: u64,
    ) -> Result<(), ClientCertificateError> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        match peer.chain.split_first() {
            Some((leaf, intermediates)) => self.check(leaf, intermediates, now),
            None => Ok(()),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now).map_err(tell)?;
        Ok(ClientCertVerified::assertion())
    }

    /// TLS 1.2 (RFC 5246 §7.4.8). By the bare key, since webpki reads no version 1 certificate;
    /// the certificate itself has been checked before.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let parsed = parse(cert).map_err(|reason| tell(refused(cert, reason)))?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        self.verify_by_key(&key, dss.scheme, message, dss.signature())
            .map_err(|error| tell(refused(cert, error.into())))?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// TLS 1.3 (RFC 8446 §4.4.3), by the bare key for the same reason.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let parsed = parse(cert).map_err(|reason| tell(refused(cert, reason)))?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The names of the authorities, which tell a client which certificate to show.
pub(super) fn hints(trust: &Trust) -> Vec<DistinguishedName> {
    trust.roots.subjects()
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Reason> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Reason::Malformed("bytes after its end".into())),
        Err(error) => Err(Reason::Malformed(error.to_string())),
    }
}

pub(super) fn within_validity(certificate: &X509Certificate<'_>, now: u64) -> Result<(), Reason> {
    let validity = certificate.validity();
    if now < seconds(validity.not_before.timestamp()) {
        return Err(Reason::NotYetValid);
    }
    if now > seconds(validity.not_after.timestamp()) {
        return Err(Reason::Expired);
    }
    Ok(())
}

/// A date before 1970 counts as 1970: it is past either way.
pub(super) fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}

fn scheme_of(algorithm: &Oid<'_>) -> Result<SignatureScheme, Reason> {
    let known = [
        (OID_PKCS1_SHA256WITHRSA, SignatureScheme::RSA_PKCS1_SHA256),
        (OID_PKCS1_SHA384WITHRSA, SignatureScheme::RSA_PKCS1_SHA384),
        (OID_PKCS1_SHA512WITHRSA, SignatureScheme::RSA_PKCS1_SHA512),
        (
            OID_SIG_ECDSA_WITH_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ),
        (
            OID_SIG_ECDSA_WITH_SHA384,
            SignatureScheme::ECDSA_NISTP384_SHA384,
        ),
        (
            OID_SIG_ECDSA_WITH_SHA512,
            SignatureScheme::ECDSA_NISTP521_SHA512,
        ),
        (OID_SIG_ED25519, SignatureScheme::ED25519),
    ];
    known
        .into_iter()
        .find(|(oid, _)| oid == algorithm)
        .map(|(_, scheme)| scheme)
        .ok_or(Reason::UnsupportedAlgorithm)
}

fn refused(certificate: &CertificateDer<'_>, reason: Reason) -> ClientCertificateError {
    ClientCertificateError {
        fingerprint: fingerprint(certificate),
        reason,
    }
}

/// SHA-256 of DER, lowercase hexadecimal.
pub(super) fn fingerprint(der: &[u8]) -> String {
    digest::digest(&digest::SHA256, der).as_ref().iter().fold(
        String::with_capacity(64),
        |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        },
    )
}

impl From<webpki::Error> for Reason {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::UnknownIssuer => Self::UnknownIssuer,
            E::CaUsedAsEndEntity => Self::Authority,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::WrongUsage,
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | E::SignatureAlgorithmMismatch => Self::UnsupportedAlgorithm,
            E::MaximumPathDepthExceeded => Self::TooDeep,
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::UnsupportedCertVersion => {
                Self::Malformed(error.to_string())
            }
            other => Self::Path(other.to_string()),
        }
    }
}

/// Notes the error for [`watch`], and chooses the alert (RFC 8446 §6.2). A client learns what it could see
/// itself, that its certificate is outdated or of an authority that is not asked for; of all else that it
/// was refused, and the log learns why.
fn tell(error: ClientCertificateError) -> rustls::Error {
    let told = match error.reason {
        Reason::Expired => CertificateError::Expired,
        Reason::NotYetValid => CertificateError::NotValidYet,
        Reason::UnknownIssuer => CertificateError::UnknownIssuer,
        Reason::Version1
        | Reason::NoUsage
        | Reason::WrongUsage
        | Reason::Authority
        | Reason::BadSignature
        | Reason::UnsupportedAlgorithm
        | Reason::TooDeep
        | Reason::NotAskedFor
        | Reason::Malformed(_)
        | Reason::Path(_) => CertificateError::Other(OtherError(Arc::new(error.clone()))),
    };
    // Fails only where nobody watches, who could be told.
    let _ = REFUSAL.try_with(|refusal| refusal.replace(Some(error)));
    rustls::Error::InvalidCertificate(told)
}
