//! Certificates minted for one test.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::der;

/// A certificate authority.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    der: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key, and what a client sends with it.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub chain_pem: String,
    pub key_pem: String,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

/// The parameters of a device's certificate; a test changes what it is about.
pub fn device(secret: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[
        (DnType::CommonName, secret),
        (DnType::OrganizationName, "Fleet"),
    ]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A distinguished name of UTF-8 strings.
pub fn name(attributes: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        name.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
    }
    name
}

/// Validity from now on, for `span`.
pub fn valid_for(params: &mut CertificateParams, span: Duration) {
    params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(60);
    params.not_after = OffsetDateTime::now_utc() + span;
}

impl Authority {
    /// A self-signed root.
    pub fn new(common_name: &str) -> Self {
        Self::with(authority_params(common_name))
    }

    /// A root of these parameters.
    pub fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            params,
            key,
        }
    }

    /// An authority below this one.
    pub fn intermediate(&self, common_name: &str) -> Self {
        self.intermediate_with(authority_params(common_name))
    }

    /// An authority of these parameters below this one.
    pub fn intermediate_with(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            params,
            key,
        }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its private key, PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Its certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A server's certificate for these names.
    pub fn server(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// A device's certificate with this secret.
    pub fn device(&self, secret: &str) -> Identity {
        self.issue(device(secret))
    }

    /// A certificate of these parameters.
    pub fn issue(&self, params: CertificateParams) -> Identity {
        self.issue_with(params, KeyPair::generate().unwrap())
    }

    /// A certificate of these parameters for this key.
    pub fn issue_with(&self, params: CertificateParams, key: KeyPair) -> Identity {
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// A device's certificate whose subject is this DER, whatever it says.
    pub fn issue_to(&self, subject: &[u8]) -> Identity {
        const SUBJECT: usize = 5;
        self.issue_edited(device("replaced"), |fields| {
            fields[SUBJECT] = subject.to_vec();
        })
    }

    /// A certificate of these parameters whose fields (RFC 5280 §4.1) are changed before signing.
    pub fn issue_edited(
        &self,
        params: CertificateParams,
        edit: impl FnOnce(&mut Vec<Vec<u8>>),
    ) -> Identity {
        let mut identity = self.issue(params);
        let parts = der::children(&identity.chain[0]);
        let mut fields = der::children(&parts[0]);
        edit(&mut fields);
        let signed = der::sequence(&fields);
        let signature = self.key.sign(&signed).unwrap();
        let certificate = [signed, parts[1].clone(), der::bit_string(&signature)];
        identity.replace_leaf(der::sequence(&certificate));
        identity
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl Identity {
    /// The same, sending this authority's certificate along.
    pub fn with_intermediate(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.der.clone());
        self.chain_pem.push_str(&authority.pem);
        self
    }

    /// The same with one bit of the certificate's signature turned.
    pub fn tampered(mut self) -> Self {
        let mut leaf = self.chain[0].to_vec();
        *leaf.last_mut().unwrap() ^= 1;
        self.replace_leaf(leaf);
        self
    }

    /// This certificate with another's key.
    pub fn with_key_of(mut self, other: &Self) -> Self {
        self.key = other.key.clone_key();
        self.key_pem.clone_from(&other.key_pem);
        self
    }

    fn replace_leaf(&mut self, leaf: Vec<u8>) {
        self.chain = vec![CertificateDer::from(leaf)];
        self.chain_pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(&self.chain[0])
        );
    }
}

/// The parameters of an authority; a test changes what it is about.
pub fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, common_name)]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
