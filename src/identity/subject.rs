//! The one common name of a subject, from its DER (RFC 5280 §4.1.2.6, X.501).
//!
//! A distinguished name is never turned into text and split again: `O="x,CN=victim"` is an
//! organisation, whatever it looks like when printed.

use thiserror::Error;
use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::oid_registry::OID_X509_COMMON_NAME;
use x509_parser::prelude::{FromDer, X509Name};

use crate::secret::Secret;

/// RFC 5280 bounds a common name at 64 characters; certificates of real fleets exceed it.
const MAX_LENGTH: usize = 1024;

/// Why a subject yields no client secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubjectError {
    /// The subject is not DER of a name.
    #[error("the certificate's subject is malformed")]
    Malformed,
    /// No common name at all.
    #[error("the certificate's subject has no CN")]
    NoCommonName,
    /// Two or more common names: which one would count?
    #[error("the certificate's subject has more than one CN")]
    SeveralCommonNames,
    /// The common name is the empty string.
    #[error("the certificate's CN is empty")]
    Empty,
    /// Nothing but white space, or white space at an end, which a header field would lose.
    #[error("the certificate's CN is blank, or begins or ends with white space")]
    Blank,
    /// A NUL, line break or other control character.
    #[error("the certificate's CN holds a control character")]
    ControlCharacter,
    /// A string type other than `UTF8String`, `PrintableString` and `IA5String`, or bytes that are
    /// not of the type they claim.
    #[error("the certificate's CN is not UTF-8 text")]
    NotUtf8,
    /// Longer than 1 KiB.
    #[error("the certificate's CN is longer than {MAX_LENGTH} bytes")]
    TooLong,
}

/// Reads the client secret out of the DER of a subject.
///
/// # Errors
/// [`SubjectError`] if there is not exactly one usable common name.
pub fn common_name(subject: &[u8]) -> Result<Secret, SubjectError> {
    let (_, name) = X509Name::from_der(subject).map_err(|_| SubjectError::Malformed)?;
    let mut values = name
        .iter_attributes()
        .filter(|attribute| *attribute.attr_type() == OID_X509_COMMON_NAME)
        .map(x509_parser::x509::AttributeTypeAndValue::attr_value);
    let value = values.next().ok_or(SubjectError::NoCommonName)?;
    if values.next().is_some() {
        return Err(SubjectError::SeveralCommonNames);
    }
    text(value).map(Secret::new)
}

fn text<'a>(value: &'a Any<'_>) -> Result<&'a str, SubjectError> {
    as_text(value).ok_or(SubjectError::NotUtf8).and_then(usable)
}

/// A string of one of the types that are text as it stands.
pub(super) fn as_text<'a>(value: &'a Any<'_>) -> Option<&'a str> {
    let text = std::str::from_utf8(value.data).ok()?;
    match value.tag() {
        Tag::Utf8String => Some(text),
        Tag::PrintableString | Tag::Ia5String => text.is_ascii().then_some(text),
        _ => None,
    }
}

fn usable(text: &str) -> Result<&str, SubjectError> {
    if text.is_empty() {
        return Err(SubjectError::Empty);
    }
    if text.len() > MAX_LENGTH {
        return Err(SubjectError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(SubjectError::ControlCharacter);
    }
    if text.trim().len() != text.len() {
        return Err(SubjectError::Blank);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const BMP: u8 = 0x1e;
    const TELETEX: u8 = 0x14;

    fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let mut der = vec![tag];
        match length {
            0..=127 => der.push(length.to_be_bytes()[1]),
            128..=255 => der.extend([0x81, length.to_be_bytes()[1]]),
            _ => {
                der.push(0x82);
                der.extend(length.to_be_bytes());
            }
        }
        der.extend(value);
        der
    }

    fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        tlv(0x30, &[tlv(0x06, oid), tlv(tag, value)].concat())
    }

    /// A name of relative distinguished names, each a set of attributes.
    fn name(rdns: &[&[Vec<u8>]]) -> Vec<u8> {
        let sets: Vec<u8> = rdns
            .iter()
            .flat_map(|set| tlv(0x31, &set.concat()))
            .collect();
        tlv(0x30, &sets)
    }

    fn read(rdns: &[&[Vec<u8>]]) -> Result<String, SubjectError> {
        common_name(&name(rdns)).map(|secret| secret.expose().to_owned())
    }

    fn cn(tag: u8, value: &[u8]) -> Result<String, SubjectError> {
        read(&[&[attribute(CN, tag, value)]])
    }

    #[test]
    fn the_common_name_is_taken_exactly_as_it_stands() {
        for secret in [
            "d7cc2964-a48b-4a6e-871a-08da28e7883d",
            "ab=cd",
            "a,b",
            "a+b\\c",
            "a b",
            "é",
        ] {
            assert_eq!(cn(UTF8, secret.as_bytes()).as_deref(), Ok(secret));
        }
        assert_eq!(cn(PRINTABLE, b"abc").as_deref(), Ok("abc"));
    }

    #[test]
    fn an_organisation_that_looks_like_a_common_name_is_none() {
        let forged = attribute(O, UTF8, b"x,CN=victim");
        let own = attribute(CN, UTF8, b"own");
        assert_eq!(
            read(&[std::slice::from_ref(&forged), &[own]]).as_deref(),
            Ok("own")
        );
        assert_eq!(read(&[&[forged]]), Err(SubjectError::NoCommonName));
    }

    #[test]
    fn a_subject_without_exactly_one_common_name_is_refused() {
        let one = attribute(CN, UTF8, b"a");
        let two = attribute(CN, UTF8, b"b");
        assert_eq!(read(&[]), Err(SubjectError::NoCommonName));
        assert_eq!(
            read(&[std::slice::from_ref(&one), std::slice::from_ref(&two)]),
            Err(SubjectError::SeveralCommonNames)
        );
        assert_eq!(read(&[&[one, two]]), Err(SubjectError::SeveralCommonNames));
        let hidden = attribute(O, UTF8, b"x");
        assert_eq!(
            read(&[&[hidden, attribute(CN, UTF8, b"b")]]).as_deref(),
            Ok("b")
        );
    }

    #[test]
    fn each_unusable_common_name_has_its_own_reason() {
        for (value, reason) in [
            (&b""[..], SubjectError::Empty),
            (b" ", SubjectError::Blank),
            (b" a", SubjectError::Blank),
            (b"a ", SubjectError::Blank),
            ("\u{a0}".as_bytes(), SubjectError::Blank),
            (b"a\0b", SubjectError::ControlCharacter),
            (b"a\r\nb", SubjectError::ControlCharacter),
            (b"\x7f", SubjectError::ControlCharacter),
            (b"\xff\xfe", SubjectError::NotUtf8),
            (&[b'a'; MAX_LENGTH + 1], SubjectError::TooLong),
        ] {
            assert_eq!(cn(UTF8, value), Err(reason), "{value:?}");
        }
        assert!(cn(UTF8, &[b'a'; MAX_LENGTH]).is_ok());
        assert_eq!(cn(PRINTABLE, "é".as_bytes()), Err(SubjectError::NotUtf8));
        assert_eq!(cn(BMP, b"\0a"), Err(SubjectError::NotUtf8));
        assert_eq!(cn(TELETEX, b"a"), Err(SubjectError::NotUtf8));
    }

    #[test]
    fn bytes_that_are_no_name_are_refused() {
        for bytes in [&b""[..], b"\x30", b"\x30\x80", b"\x31\x00", b"\xff\xff\xff"] {
            assert_eq!(
                common_name(bytes).unwrap_err(),
                SubjectError::Malformed,
                "{bytes:?}"
            );
        }
    }
}
