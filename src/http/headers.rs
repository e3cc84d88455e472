//! Header fields on their way through: hop-by-hop fields end here (RFC 9110 §7.6.1), whatever a
//! client says about its own identity is removed, and what the gateway knows is set last, so that
//! nothing the client sends can remove or double it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderName, HeaderValue,
    SEC_WEBSOCKET_PROTOCOL, TE, TRANSFER_ENCODING,
};

use serde_json::Value;

use super::assertion::{Assertions, Client};
use super::certificate::CertificateFields;
use super::target::Host;
use crate::access::{Admission, ClientCredential, Connection};
use crate::assertion::Asserter;
use crate::credential::{Presented, Source};
use crate::route::{CertificateDialect, ForwardedClaim, Route};
use crate::secret::Secret;
use crate::upstream::CommonFields;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The id of a request, for the client, the upstream and the log.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// RFC 9110 §7.6.1, with what older implementations treat alike. `Transfer-Encoding` is between
/// hyper and each side.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Removes the fields that end at this hop: those that `Connection` names, and those that are
/// hop-by-hop whether it names them or not.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    remove_all(headers, is_hop_by_hop);
}

/// Removes what a server must not get from a client: what ends at this hop, `Trailer`, since trailers
/// do, and `Expect`, which the gateway has answered itself (RFC 9110 §10.1.1); and every field by which
/// some upstream, in some dialect, learns who a client is, `ours` among them.
pub(super) fn remove_what_ends_here(headers: &mut HeaderMap, ours: &[HeaderName]) {
    remove_all(headers, |name| {
        is_hop_by_hop(name)
            || matches!(name, "trailer" | "expect")
            || is_identity(name)
            || is_one_of(name, ours)
    });
}

/// Writes fields, and the end of a head, as HTTP/1.1 has them (RFC 9112 §5, §6).
pub(super) fn write(head: &mut Vec<u8>, fields: &HeaderMap) {
    // Their types have looked at each name and value: none of them holds a line break.
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
}

/// Removes what an interim answer must not say: what ends at this hop, and what frames an answer that
/// is still to come.
pub(super) fn remove_what_hints_cannot_say(headers: &mut HeaderMap) {
    remove_all(headers, |name| {
        is_hop_by_hop(name) || matches!(name, "content-length" | "trailer")
    });
}

/// Removes the fields that `ends` says it of and, with `Connection`, those that it names. They are
/// looked at one by one, which costs less than to look for each that could be there.
fn remove_all(headers: &mut HeaderMap, ends: impl Fn(&str) -> bool) {
    let ending: Vec<HeaderName> = headers
        .keys()
        .filter(|name| ends(name.as_str()))
        .cloned()
        .collect();
    if ending.contains(&CONNECTION) {
        remove_named_by_connection(headers);
    }
    for name in ending {
        if name == TRANSFER_ENCODING {
            // RFC 9112 §6.3: the coding counts, and whoever takes it off takes a length with it that
            // says otherwise.
            headers.remove(CONTENT_LENGTH);
        }
        headers.remove(name);
    }
}

/// Whether an answer may end with trailers for the client: `TE` names them (RFC 9110 §10.1.4), as
/// HTTP/2 allows it to and nothing else (RFC 9113 §8.2.2).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(TE)
        && headers
            .get_all(TE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in names {
        headers.remove(name);
    }
}

fn is_one_of(name: &str, ours: &[HeaderName]) -> bool {
    !ours.is_empty() && {
        let usual = usual(name);
        ours.iter().any(|ours| ours.as_str() == usual)
    }
}

/// Names of fields that carry an identity, in full.
const IDENTITY_NAMES: [&str; 20] = [
    "client-cert",
    "client-cert-chain",
    "client-ip",
    "forwarded",
    "remote-user",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-arr-clientcert",
    "x-authorization",
    "x-client-id",
    "x-client-ip",
    "x-client-name",
    "x-client-secret",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-remote-user",
    "x-rewrite-url",
    "x-request-id",
    "x-user-id",
];

/// Beginnings of names that carry an identity or a decision.
const IDENTITY_PREFIXES: [&str; 24] = [
    "cloudfront-viewer-",
    "l5d-",
    "ssl-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-atom-",
    "x-auth-request-",
    "x-authenticated-",
    "x-client-cert",
    "x-client-dn",
    "x-client-verify",
    "x-consumer-",
    "x-envoy-",
    "x-fluxmq-",
    "x-forwarded-",
    "x-goog-authenticated-",
    "x-magistrala-",
    "x-ms-client-principal",
    "x-original-",
    "x-portcullis-",
    "x-ssl",
    "x-supermq-",
    "x-tls-",
    "x-webauth-",
];

/// CGI and its heirs make no difference between `-`, `_`, `.` and, some of them, whatever else is
/// neither letter nor digit (RFC 3875 §4.1.18), so neither does this; the name itself is in lower
/// case already.
#[must_use]
pub fn is_identity(name: &str) -> bool {
    // One comparison settles most names: only these letters begin one that is looked for, or what
    // counts as a dash.
    let begins_one = |byte: &u8| match byte {
        b'c' | b'f' | b'l' | b'r' | b's' | b't' | b'x' => true,
        other => !other.is_ascii_alphanumeric(),
    };
    if !name.as_bytes().first().is_some_and(begins_one) {
        return false;
    }
    let is_odd = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-';
    if !name.bytes().any(is_odd) {
        return is_identity_name(name);
    }
    let usual = usual(name);
    // To such a reader these would say where the body ends.
    matches!(usual.as_str(), "content-length" | "transfer-encoding") || is_identity_name(&usual)
}

/// The name as those read it who make no difference.
pub(super) fn usual(name: &str) -> String {
    name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}

fn is_identity_name(name: &str) -> bool {
    IDENTITY_NAMES.contains(&name)
        || IDENTITY_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether the field is about the connection or the message that it stands in, and about no other.
#[must_use]
pub fn ends_here(name: &HeaderName) -> bool {
    is_hop_by_hop(name.as_str())
        || matches!(
            name.as_str(),
            "content-length" | "expect" | "host" | "trailer"
        )
}

/// Whether the gateway itself, or the upstream's framing, has a use for the field.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    let starts = |prefix: &str| name.as_str().starts_with(prefix);
    !starts("x-") || starts("x-forwarded-") || *name == X_REAL_IP || *name == X_REQUEST_ID
}

/// Sets what the client's token says. A value that no field can carry is not told.
pub(super) fn set_claims(
    headers: &mut HeaderMap,
    forwarded: &[ForwardedClaim],
    admission: &Admission,
) {
    let Some(token) = admission.token() else {
        return;
    };
    for claim in forwarded {
        if let Some(value) = claim.path.find(token.claims()).and_then(field_value) {
            headers.insert(claim.field.clone(), value);
        }
    }
}

/// Sets what the call-out has said of the client. `claim_fields` of the rules name these fields, so
/// that none of them is the client's own, even where the service leaves one out.
pub(super) fn set_granted(headers: &mut HeaderMap, admission: &Admission) {
    let granted = admission.grant().into_iter();
    for (name, value) in granted.flat_map(|grant| grant.fields()) {
        headers.append(name, value.clone());
    }
}

/// Texts as they are, everything else as JSON writes it: a list can be told from a text with commas.
fn field_value(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // A line break would begin another field, and blanks at the ends are no part of a value.
    let is_plain = text.trim() == text && !text.chars().any(char::is_control);
    HeaderValue::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| is_plain)
}

/// Moves the tokens that stand among the subprotocols behind `prefix` into `presented`; the server
/// sees the others alone.
pub(super) fn take_subprotocol_tokens(
    headers: &mut HeaderMap,
    prefix: &str,
    presented: &mut Presented,
) {
    let mut kept: Vec<String> = Vec::new();
    let mut found = false;
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for entry in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if let Some(token) = entry.strip_prefix(prefix) {
                presented.add_token(Source::Subprotocol, token);
                found = true;
            } else if !entry.is_empty() {
                kept.push(entry.to_owned());
            }
        }
    }
    if !found {
        return;
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(rest) = HeaderValue::try_from(kept.join(", "))
        && !kept.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
    }
}

/// The fields that are the same for every request of a connection, made once.
#[derive(Debug)]
pub(crate) struct ConnectionFields {
    /// RFC 7239 §4, up to the host and from there on.
    forwarded: (String, String),
    host: OnceLock<HostFields>,
    scheme: &'static str,
    forwarded_for: HeaderValue,
    port: HeaderValue,
    certificate: Option<HeaderValue>,
    described: CertificateFields,
    assertions: Assertions,
}

impl ConnectionFields {
    pub(super) fn new(connection: &Connection, port: u16) -> Self {
        let remote = connection.remote().ip().to_canonical();
        let scheme = if connection.is_tls() { "https" } else { "http" };
        // An IPv6 address stands in brackets and quotes (RFC 7239 §6).
        let client = match remote {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let secret = connection.device().map(|device| device.client_secret());
        let certificate = secret
            .and_then(Result::ok)
            .and_then(|secret| authorization("Client", secret));
        Self {
            forwarded: (
                format!("for={client};host=\""),
                format!("\";proto={scheme}"),
            ),
            host: OnceLock::new(),
            scheme,
            forwarded_for: ascii(&remote.to_string()),
            port: port.into(),
            certificate,
            described: CertificateFields::default(),
            assertions: Assertions::default(),
        }
    }

    /// Sets what the upstream is told about the client, and yields what it is told with every request.
    /// Comes after everything that removes: none of that stands there any more.
    pub(super) fn set(
        &self,
        headers: &mut HeaderMap,
        admission: &Admission,
        host: &Host,
        request_id: &HeaderValue,
    ) -> Arc<CommonFields> {
        if let Some(value) = self.credential(admission) {
            headers.insert(AUTHORIZATION, value);
        }
        let said;
        let host = match self.host.get_or_init(|| self.about(host)) {
            usual if usual.host == host.as_str() => usual,
            _ => {
                said = self.about(host);
                &said
            }
        };
        headers.insert(X_REQUEST_ID, request_id.clone());
        headers.insert(HOST, host.host.clone());
        Arc::clone(&host.common)
    }

    /// Sets what the route's dialects say of the certificate. One that has expired meanwhile counts
    /// for none, whatever the route demands.
    pub(super) fn set_certificate(
        &self,
        headers: &mut HeaderMap,
        dialects: &[CertificateDialect],
        connection: &Connection,
        now: u64,
    ) {
        let device = connection
            .device()
            .filter(|device| !device.has_expired(now));
        self.described
            .set(headers, dialects, device.map(|device| &**device));
    }

    /// Sets what the gateway asserts of the client, where the route's upstream is told.
    pub(super) fn set_assertion(
        &self,
        headers: &mut HeaderMap,
        asserter: &Asserter,
        route: &Route,
        client: &Client<'_>,
    ) {
        let Some(forwarded) = &route.forward_assertion else {
            return;
        };
        if let Some(value) = self.assertions.of(asserter, route, forwarded, client) {
            headers.insert(forwarded.field.clone(), value);
        }
    }

    fn credential(&self, admission: &Admission) -> Option<HeaderValue> {
        match admission.credential() {
            ClientCredential::Certificate(_) => self.certificate.clone(),
            ClientCredential::Secret(secret) => authorization("Client", secret),
            ClientCredential::Bearer(token) => authorization("Bearer", token),
            ClientCredential::Unchecked => None,
        }
    }

    fn about(&self, host: &Host) -> HostFields {
        let (client, proto) = &self.forwarded;
        let forwarded = ascii(&[client, host.as_str(), proto].concat());
        let host = ascii(host.as_str());
        // None of them is an operator's to set, nor a claim's or another service's: see `is_guarded`
        // and `is_reserved`.
        let common = CommonFields::new(vec![
            (FORWARDED, forwarded),
            (X_FORWARDED_FOR, self.forwarded_for.clone()),
            (X_REAL_IP, self.forwarded_for.clone()),
            (X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme)),
            (X_FORWARDED_PORT, self.port.clone()),
            (X_FORWARDED_HOST, host.clone()),
        ]);
        HostFields {
            host,
            common: Arc::new(common),
        }
    }
}

/// What servers are told of the host that a request is for. Nearly every request of a connection is for
/// the same one, so it is kept for the first.
#[derive(Debug)]
struct HostFields {
    host: HeaderValue,
    common: Arc<CommonFields>,
}

/// `Client <secret>` or `Bearer <token>`, marked so that no library indexes or prints it.
fn authorization(scheme: &str, secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("{scheme} {}", secret.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// For text that consists of host names, addresses and digits.
pub(super) fn ascii(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// HTTP/2 may split `Cookie` into crumbs, HTTP/1.1 may not (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_of_identity_is_recognised() {
        for name in [
            "client-cert",
            "client_cert",
            "client-cert-chain",
            "forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x.forwarded.for",
            "x-forwarded-client-cert",
            "x-real-ip",
            "x-ssl-client-verify",
            "x_ssl_client_cn",
            "ssl-client-subject-dn",
            "ssl_client_verify",
            "x-forwarded-tls-client-cert-info",
            "l5d-client-id",
            "x-fluxmq-username",
            "x-client-id",
            "remote_user",
            "x-request-id",
            "x-envoy-external-address",
            "x~real~ip",
            "content_length",
            "transfer.encoding",
            "x-ssl",
            "cloudfront-viewer-cert-subject",
            "x-original-url",
        ] {
            assert!(is_identity(name), "{name}");
        }
    }

    #[test]
    fn other_fields_are_left_alone() {
        for name in [
            "host",
            "authorization",
            "accept",
            "content-type",
            "content-length",
            "authorization_",
            "cookie",
            "x-api-key",
            "my_header",
            "traceparent",
            "sec-websocket-key",
            "x-custom",
            "from",
            "range",
            "referer",
        ] {
            assert!(!is_identity(name), "{name}");
        }
    }

    #[test]
    fn what_connection_names_is_removed_with_it() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("close, X-Private"));
        headers.append(CONNECTION, HeaderValue::from_static("authorization"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("1"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert("x-kept", HeaderValue::from_static("1"));
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2"]
        );
    }
}
