//! The names of a certificate besides its common name: serial number (RFC 5280 §4.1.2.2) and
//! subject alternative names (§4.2.1.6).

use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::subject::as_text;

/// What one certificate says. A name that is not plain text, or that is empty, is left out: nothing
/// can be equal to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The serial number in lowercase hexadecimal, two digits to the byte.
    pub serial: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs, such as a SPIFFE id.
    pub uri: Vec<String>,
    /// Other names that are strings, each under its type, an OID in dotted form.
    pub other: Vec<(String, String)>,
}

impl Names {
    /// Reads the DER of a certificate. One that does not parse has no names, so that whatever is
    /// compared with them is refused.
    #[must_use]
    pub fn read(certificate: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return names;
        };
        names.serial = hexadecimal(certificate.raw_serial());
        // Twice the extension is an error (RFC 5280 §4.2), and leaves no name.
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                names.add(name);
            }
        }
        names
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        let text = |text: &str| is_usable(text).then(|| text.to_owned());
        match name {
            GeneralName::DNSName(name) => self.dns.extend(text(name)),
            GeneralName::URI(uri) => self.uri.extend(text(uri)),
            GeneralName::OtherName(kind, value) => {
                let value = other_name(value).as_deref().and_then(text);
                self.other
                    .extend(value.map(|value| (kind.to_id_string(), value)));
            }
            GeneralName::X400Address(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RFC822Name(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => {}
        }
    }
}

/// The string within `[0] EXPLICIT ANY` (RFC 5280 §4.2.1.6).
fn other_name(value: &[u8]) -> Option<String> {
    let (_, outer) = Any::from_der(value).ok()?;
    if outer.class() != Class::ContextSpecific || outer.tag() != Tag(0) {
        return None;
    }
    let (rest, inner) = Any::from_der(outer.data).ok()?;
    rest.is_empty().then_some(())?;
    as_text(&inner).map(str::to_owned)
}

pub(super) fn is_usable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// DER puts a zero byte before a number whose first bit is set; it is no part of the number.
fn hexadecimal(number: &[u8]) -> String {
    let digits = match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    digits.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, OtherNameValue, SanType, SerialNumber};

    use super::*;

    fn names(serial: &[u8], alternative: Vec<SanType>) -> Names {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.subject_alt_names = alternative;
        let key = KeyPair::generate().unwrap();
        Names::read(params.self_signed(&key).unwrap().der())
    }

    fn other(value: &str) -> SanType {
        let kind = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
        SanType::OtherName((kind, OtherNameValue::Utf8String(value.into())))
    }

    #[test]
    fn every_kind_of_name_is_read_as_it_stands() {
        let read = names(
            &[0x9a, 0x0b, 0x01],
            vec![
                SanType::DnsName("dev-1.fleet.example".try_into().unwrap()),
                SanType::URI("urn:uuid:9b1f".try_into().unwrap()),
                SanType::URI("spiffe://fleet/dev-1".try_into().unwrap()),
                SanType::Rfc822Name("a@b.example".try_into().unwrap()),
                other("dev-1@fleet"),
            ],
        );
        assert_eq!(read.serial, "9a0b01");
        assert_eq!(read.dns, ["dev-1.fleet.example"]);
        assert_eq!(read.uri, ["urn:uuid:9b1f", "spiffe://fleet/dev-1"]);
        let kind = "1.3.6.1.4.1.311.20.2.3".to_owned();
        assert_eq!(read.other, [(kind, "dev-1@fleet".to_owned())]);
    }

    #[test]
    fn a_name_with_a_control_character_is_no_name() {
        let uri = SanType::URI("urn:x\0urn:y".try_into().unwrap());
        let dns = SanType::DnsName("dev\n.example".try_into().unwrap());
        let read = names(&[1], vec![uri, dns, other("a\0b"), other("")]);
        assert_eq!(read.dns, [""; 0]);
        assert_eq!(read.uri, [""; 0]);
        assert_eq!(read.other, []);
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(Names::read(b""), Names::default());
        assert_eq!(Names::read(&[0x30, 0x82, 0xff, 0xff]), Names::default());
    }
}
