//! A client's certificate in the fields by which upstreams behind other proxies know it (RFC 9440,
//! and what Envoy, nginx and Traefik send). Made once for a connection, when a route first asks for
//! it. The clients' own fields of these names have been removed before, as from every request.

use std::fmt::Write as _;
use std::sync::OnceLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::identity::{Description, DeviceIdentity, DistinguishedName};
use crate::route::CertificateDialect;

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const SSL_CERT: HeaderName = HeaderName::from_static("x-ssl-client-cert");
const SSL_VERIFY: HeaderName = HeaderName::from_static("x-ssl-client-verify");
const SSL_SUBJECT: HeaderName = HeaderName::from_static("x-ssl-client-s-dn");
const SSL_ISSUER: HeaderName = HeaderName::from_static("x-ssl-client-i-dn");
const SSL_SERIAL: HeaderName = HeaderName::from_static("x-ssl-client-serial");
const SSL_FINGERPRINT: HeaderName = HeaderName::from_static("x-ssl-client-fingerprint");
const TRAEFIK_CERT: HeaderName = HeaderName::from_static("x-forwarded-tls-client-cert");
const TRAEFIK_INFO: HeaderName = HeaderName::from_static("x-forwarded-tls-client-cert-info");

type Fields = Vec<(HeaderName, HeaderValue)>;

/// The fields of one connection, in each dialect that was asked for.
#[derive(Debug, Default)]
pub(super) struct CertificateFields(OnceLock<Box<Dialects>>);

#[derive(Debug, Default)]
struct Dialects {
    rfc9440: OnceLock<Fields>,
    xfcc: OnceLock<Fields>,
    nginx: OnceLock<Fields>,
    traefik: OnceLock<Fields>,
}

impl CertificateFields {
    /// Sets what `dialects` say of `device`, the one device of the connection, or of there being
    /// none.
    pub(super) fn set(
        &self,
        headers: &mut HeaderMap,
        dialects: &[CertificateDialect],
        device: Option<&DeviceIdentity>,
    ) {
        for dialect in dialects {
            match device {
                Some(device) => {
                    for (name, value) in self.fields(*dialect, device) {
                        headers.insert(name.clone(), value.clone());
                    }
                }
                None if *dialect == CertificateDialect::Nginx => {
                    headers.insert(SSL_VERIFY, HeaderValue::from_static("NONE"));
                }
                None => {}
            }
        }
    }

    fn fields(&self, dialect: CertificateDialect, device: &DeviceIdentity) -> &Fields {
        let all = self.0.get_or_init(Box::default);
        match dialect {
            CertificateDialect::Rfc9440 => all.rfc9440.get_or_init(|| rfc9440(device)),
            CertificateDialect::Xfcc => all.xfcc.get_or_init(|| xfcc(device)),
            CertificateDialect::Nginx => all.nginx.get_or_init(|| nginx(device)),
            CertificateDialect::Traefik => all.traefik.get_or_init(|| traefik(device)),
        }
    }
}

/// Most of them hold the common name, the client's secret, so no library shall index or print them.
/// What no field can carry is left out.
fn fields<const N: usize>(values: [(HeaderName, String); N]) -> Fields {
    let field = |(name, value): (HeaderName, String)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        (!value.is_empty()).then_some((name, value))
    };
    values.into_iter().filter_map(field).collect()
}

/// RFC 9440 §2.2, §2.3: byte sequences of structured fields; the chain is without the leaf.
fn rfc9440(device: &DeviceIdentity) -> Fields {
    let bytes = |der: &[u8]| format!(":{}:", STANDARD.encode(der));
    let others = device.peer().chain().iter().skip(1);
    let chain: Vec<String> = others.map(|der| bytes(der)).collect();
    fields([
        (CLIENT_CERT, bytes(device.peer().leaf())),
        (CLIENT_CERT_CHAIN, chain.join(", ")),
    ])
}

/// One element, as of a client that Envoy itself has met; without `By`, which would name the
/// gateway.
fn xfcc(device: &DeviceIdentity) -> Fields {
    let mut element = format!("Hash={}", device.fingerprint());
    // Writing to a String cannot fail.
    let _ = write!(element, ";Cert=\"{}\"", encoded(&pem(device.peer().leaf())));
    if device.peer().chain().len() > 1 {
        let all = device.peer().chain().iter();
        let all: String = all.map(|der| pem(der)).collect();
        let _ = write!(element, ";Chain=\"{}\"", encoded(&all));
    }
    if let Some(description) = device.describe() {
        // RFC 2253 escapes quotes as the format asks for.
        let _ = write!(element, ";Subject=\"{}\"", description.subject.rfc2253());
    }
    let uris = device.names().uri.iter().map(|name| ("URI", name));
    let names = device.names().dns.iter().map(|name| ("DNS", name));
    for (key, name) in uris.chain(names) {
        // Neither kind of name has these, and not all readers undo escapes.
        if name.contains(['"', '\\']) {
            continue;
        }
        let _ = match name.contains([',', ';', '=']) {
            true => write!(element, ";{key}=\"{name}\""),
            false => write!(element, ";{key}={name}"),
        };
    }
    fields([(XFCC, element)])
}

/// `$ssl_client_escaped_cert`, `$ssl_client_verify`, `$ssl_client_s_dn`, `$ssl_client_i_dn`,
/// `$ssl_client_serial` and `$ssl_client_fingerprint`, which is SHA-1.
fn nginx(device: &DeviceIdentity) -> Fields {
    let description = device.describe();
    let name = |of: fn(&Description) -> &DistinguishedName| {
        let name = description.as_ref().map(of);
        name.map(DistinguishedName::rfc2253).unwrap_or_default()
    };
    fields([
        (SSL_CERT, encoded(&pem(device.peer().leaf()))),
        (SSL_VERIFY, "SUCCESS".to_owned()),
        (SSL_SUBJECT, name(|description| &description.subject)),
        (SSL_ISSUER, name(|description| &description.issuer)),
        (SSL_SERIAL, device.names().serial.to_ascii_uppercase()),
        (SSL_FINGERPRINT, sha1(device.peer().leaf())),
    ])
}

/// All certificates bare of what makes them PEM, and what the leaf says.
fn traefik(device: &DeviceIdentity) -> Fields {
    let all = device.peer().chain().iter();
    let all: Vec<String> = all.map(|der| STANDARD.encode(der)).collect();
    let info = device.describe().as_ref().map(traefik_info);
    fields([
        (TRAEFIK_CERT, all.join(",")),
        (TRAEFIK_INFO, info.unwrap_or_default()),
    ])
}

fn traefik_info(description: &Description) -> String {
    const SUBJECT: &[&str] = &["DC", "C", "ST", "L", "O", "OU", "serialNumber", "CN"];
    const ISSUER: &[&str] = &["DC", "C", "ST", "L", "O", "serialNumber", "CN"];
    let mut parts = vec![
        format!(
            "Subject=\"{}\"",
            traefik_name(&description.subject, SUBJECT)
        ),
        format!("Issuer=\"{}\"", traefik_name(&description.issuer, ISSUER)),
        format!("NB=\"{}\"", description.not_before),
        format!("NA=\"{}\"", description.not_after),
    ];
    let names = description.alternatives.iter().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| is_plain(name)).collect();
    if !names.is_empty() {
        parts.push(format!("SAN=\"{}\"", names.join(",")));
    }
    encoded(&parts.join(";")).replace("%20", "+")
}

fn traefik_name(name: &DistinguishedName, kinds: &[&str]) -> String {
    let parts = kinds.iter().flat_map(|kind| {
        let shown = match *kind {
            "serialNumber" => "SN",
            other => other,
        };
        let texts = name.texts(kind).filter(|text| is_plain(text));
        texts.map(move |text| format!("{shown}={text}"))
    });
    parts.collect::<Vec<_>>().join(",")
}

/// The format escapes nothing, so an organisation called `x,CN=victim` would be read as two
/// attributes: what holds one of its separators is left out.
fn is_plain(text: &str) -> bool {
    !text.contains([',', ';', '"'])
}

/// RFC 7468 §2.
fn pem(der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = STANDARD.encode(der);
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// Everything percent-encoded but what RFC 3986 §2.3 reserves for nothing.
fn encoded(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

fn sha1(der: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
