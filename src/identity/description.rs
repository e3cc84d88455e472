//! A certificate in words, for upstreams that are told all of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::distinguished_name::DistinguishedName;
use super::names::is_usable;

/// What a certificate says of its holder, its issuer and its validity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub subject: DistinguishedName,
    /// Who has issued it.
    pub issuer: DistinguishedName,
    /// When it becomes valid, in seconds since the Unix epoch.
    pub not_before: i64,
    /// When it expires, likewise.
    pub not_after: i64,
    /// Its other names: DNS names, mail addresses, IP addresses and URIs, in this order.
    pub alternatives: Vec<String>,
}

impl Description {
    /// Reads the DER of a certificate; `None` if it does not parse.
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        Some(Self {
            subject: DistinguishedName::read(certificate.subject()),
            issuer: DistinguishedName::read(certificate.issuer()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            alternatives: alternatives(&certificate),
        })
    }
}

fn alternatives(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter().filter_map(ranked);
    let mut names: Vec<(u8, String)> = names.filter(|(_, name)| is_usable(name)).collect();
    names.sort_by_key(|(rank, _)| *rank);
    names.into_iter().map(|(_, name)| name).collect()
}

/// A name with the place of its kind.
fn ranked(name: &GeneralName<'_>) -> Option<(u8, String)> {
    match name {
        GeneralName::DNSName(name) => Some((0, (*name).to_owned())),
        GeneralName::RFC822Name(address) => Some((1, (*address).to_owned())),
        GeneralName::IPAddress(bytes) => Some((2, address(bytes)?)),
        GeneralName::URI(uri) => Some((3, (*uri).to_owned())),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
    let v6 = <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string());
    v4.or(v6).ok()
}
