//! The keys of `[upstreams]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::uri::{Authority, PathAndQuery};
use rustls_pki_types::ServerName;

use super::balancing::{BALANCES, circuit, ejection, retries, servers};
use super::check::VERSIONS;
use super::document::Section;
use super::health::health;
use super::value::{Raw, boolean, count, duration, list, one_of, text};
use crate::tls::{IdentityFiles, InitiatorSettings, MinVersion};
use crate::upstream::{self, Balance, HostField, HttpVersion, ProxyProtocol};

const PROXY_PROTOCOLS: &[(&str, ProxyProtocol)] = &[
    ("off", ProxyProtocol::Off),
    ("v1", ProxyProtocol::V1),
    ("v2", ProxyProtocol::V2 { common_name: false }),
];

const HTTP_VERSIONS: &[(&str, HttpVersion)] =
    &[("http1", HttpVersion::Http1), ("h2", HttpVersion::Http2)];

/// Every upstream, in the order of the file.
pub(super) fn upstreams(root: &Section<'_, '_>, base: &Path) -> Vec<Arc<upstream::Settings>> {
    let all = root.section("upstreams");
    let mut upstreams = Vec::new();
    for (name, section) in all.named_sections() {
        let servers = section
            .read_required("servers", servers)
            .unwrap_or_default();
        let http = section.read("protocol", HttpVersion::Http1, one_of(HTTP_VERSIONS));
        let websocket_path = section.read_optional("websocket_path", websocket_path);
        let settings = upstream::Settings {
            name,
            http,
            servers,
            balance: section.read("balance", Balance::RoundRobin, one_of(BALANCES)),
            resolve_interval: section.read("resolve_interval", Duration::from_secs(10), duration),
            ejection: ejection(section.section("ejection")),
            health: health(section.section("health"), websocket_path.clone()),
            max_busy: circuit(section.section("circuit")),
            retries: retries(section.section("retries")),
            slow_start: section.read_optional("slow_start", duration),
            connect_timeout: section.read("connect_timeout", Duration::from_secs(5), duration),
            idle_timeout: section.read("idle_timeout", Duration::from_secs(60), duration),
            max_idle: section.read("max_idle", 256, count(0..=100_000)),
            host: section.read("host", HostField::AsIs, host),
            proxy_protocol: proxy_protocol(&section, http),
            tls: tls(section.section("tls"), base),
            websocket_path,
        };
        section.finish();
        upstreams.push(Arc::new(settings));
    }
    all.finish();
    upstreams
}

fn host(raw: Raw) -> Result<HostField, String> {
    let text = text(raw)?;
    match text.as_str() {
        "as_is" => return Ok(HostField::AsIs),
        "server" => return Ok(HostField::Server),
        _ => {}
    }
    host_field(&text)
        .map(HostField::Fixed)
        .ok_or_else(|| format!("must be \"as_is\", \"server\" or a host, not \"{text}\""))
}

/// A host, with a port or without, as servers are asked for it.
pub(super) fn host_field(text: &str) -> Option<HeaderValue> {
    let authority = Authority::try_from(text).ok()?;
    let host = authority.host();
    // What stands before it is no part of a host.
    let port = text.strip_prefix(host).filter(|_| !host.is_empty())?;
    let is_port = port.is_empty() || authority.port_u16().is_some();
    HeaderValue::try_from(text).ok().filter(|_| is_port)
}

fn proxy_protocol(section: &Section<'_, '_>, http: HttpVersion) -> ProxyProtocol {
    let chosen = section.read(
        "proxy_protocol",
        ProxyProtocol::Off,
        one_of(PROXY_PROTOCOLS),
    );
    if http == HttpVersion::Http2 && chosen != ProxyProtocol::Off {
        let message = "must be \"off\" where protocol = \"h2\": its connections carry many clients";
        section.problem("proxy_protocol", message);
    }
    let with_name = section.read("proxy_protocol_cn", false, boolean);
    match chosen {
        ProxyProtocol::V2 { .. } => ProxyProtocol::V2 {
            common_name: with_name,
        },
        ProxyProtocol::Off | ProxyProtocol::V1 if with_name => {
            let message = "needs proxy_protocol = \"v2\", which alone can carry it";
            section.problem("proxy_protocol_cn", message);
            chosen
        }
        ProxyProtocol::Off | ProxyProtocol::V1 => chosen,
    }
}

/// TLS is on where the table stands, or a variable sets a key of it.
fn tls(section: Section<'_, '_>, base: &Path) -> Option<InitiatorSettings> {
    let path = |raw| Ok(base.join(text(raw)?));
    let ca = section.read_optional("ca", |raw| files(raw, base));
    let server_name = section.read_optional("server_name", server_name);
    let certificate = section.read_optional("certificate", path);
    let key = section.read_optional("key", path);
    let min_version = section.read_optional("min_version", one_of(VERSIONS));
    let is_on = section.is_present()
        || ca.is_some()
        || server_name.is_some()
        || certificate.is_some()
        || key.is_some()
        || min_version.is_some();
    if is_on && ca.is_none() {
        section.problem("ca", "must name the servers' authorities");
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(IdentityFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            section.problem("key", "is missing, although a certificate is given");
            None
        }
        (None, Some(_)) => {
            section.problem("certificate", "is missing, although a key is given");
            None
        }
    };
    section.finish();
    is_on.then(|| InitiatorSettings {
        ca: ca.unwrap_or_default(),
        server_name,
        identity,
        min_version: min_version.unwrap_or(MinVersion::Tls12),
    })
}

fn files(raw: Raw, base: &Path) -> Result<Vec<PathBuf>, String> {
    let names = list(raw)?;
    if names.is_empty() {
        return Err("must name at least one file".into());
    }
    Ok(names.into_iter().map(|name| base.join(name)).collect())
}

fn server_name(raw: Raw) -> Result<ServerName<'static>, String> {
    let name = text(raw)?;
    ServerName::try_from(name.clone()).map_err(|error| format!("\"{name}\": {error}"))
}

fn websocket_path(raw: Raw) -> Result<PathAndQuery, String> {
    let path = text(raw)?;
    let parsed = PathAndQuery::try_from(&path).map_err(|error| format!("\"{path}\": {error}"))?;
    if path.starts_with('/') && !path.contains('#') {
        Ok(parsed)
    } else {
        Err(format!("\"{path}\" must begin with / and have no fragment"))
    }
}

/// The place of the upstream of this name.
pub(super) fn known_upstream(
    name: &str,
    upstreams: &[Arc<upstream::Settings>],
) -> Result<usize, String> {
    upstreams
        .iter()
        .position(|upstream| upstream.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = upstreams
                .iter()
                .map(|upstream| upstream.name.as_str())
                .collect();
            format!(
                "no upstream is called \"{name}\"; there are: {}",
                known.join(", ")
            )
        })
}
