//! Every key there is: its default, its kind, and the rules between keys.
//!
//! The order is that of `config.toml`, which is the manual; a test holds the two together.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::addresses::refuse_shared_addresses;
use super::admin::admin;
use super::assertions::{are_used, assertions, refuse_assertions_of_nothing};
use super::bindings::{Bindings, Use};
use super::bounds::bounds;
use super::callouts::Callouts;
use super::destinations::redirect;
use super::document::{Document, Environment, Problem, Section};
use super::field_rules::{self, Fields};
use super::providers::{token_places, tokens};
use super::quotas::quotas;
use super::routes::{everything, routes};
use super::upstreams::{known_upstream, upstreams};
use super::value::{Raw, boolean, count, duration, each, list, one_of, parsed, size, text};
use super::{ListenerSettings, Service, Settings};
use ipnet::IpNet;

use crate::access::Mode;
use crate::host::HostPattern;
use crate::listener::proxied::Proxies;
use crate::mqtt::codec::is_string;
use crate::mqtt::{self, MissingPassword};
use crate::route::{Requirement, Route};
use crate::telemetry::{Format, Level, LogSettings};
use crate::tls::{self, ClientAuth, DEFAULT_POLICY, MinVersion, PolicySettings};
use crate::{quota, token, upstream};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

const MODES: &[(&str, Mode)] = &[("x509", Mode::Certificate), ("key", Mode::Key)];
const CLIENT_AUTH: &[(&str, ClientAuth)] = &[
    ("off", ClientAuth::Off),
    ("optional", ClientAuth::Optional),
    ("required", ClientAuth::Required),
];
pub(super) const VERSIONS: &[(&str, MinVersion)] =
    &[("1.3", MinVersion::Tls13), ("1.2", MinVersion::Tls12)];
const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];
const FORMATS: &[(&str, Format)] = &[("json", Format::Json), ("text", Format::Text)];
pub(super) const REQUIREMENTS: &[(&str, Requirement)] = &[
    ("client", Requirement::Client),
    ("user", Requirement::User),
    ("any", Requirement::Any),
    ("both", Requirement::Both),
    ("none", Requirement::None),
];

const MISSING_PASSWORD: &[(&str, MissingPassword)] = &[
    ("fill", MissingPassword::Fill),
    ("refuse", MissingPassword::Refuse),
];

/// What a listener speaks, with TLS or without.
#[derive(Debug, Clone, Copy)]
enum ListenerProtocol {
    Https,
    Mqtts,
    Http,
    Mqtt,
}

const LISTENER_PROTOCOLS: &[(&str, ListenerProtocol)] = &[
    ("https", ListenerProtocol::Https),
    ("mqtts", ListenerProtocol::Mqtts),
    ("http", ListenerProtocol::Http),
    ("mqtt", ListenerProtocol::Mqtt),
];

/// Reads all of it; the problems, if there are any, are all of them.
pub(super) fn settings(
    name: &str,
    source: &str,
    base: &Path,
    environment: &Environment,
) -> Result<Settings, Vec<Problem>> {
    let document = Document::new(name, source, environment);
    let table = document.parse();
    let section = document.root(&table);
    let settings = root(&section, base);
    section.finish();
    let problems = document.into_problems();
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(problems)
    }
}

fn root(root: &Section<'_, '_>, base: &Path) -> Settings {
    let mode = root.read("auth", Mode::Certificate, one_of(MODES));
    let workers = root.read("workers", 0, count(0..=1024));
    let drain_timeout = root.read("drain_timeout", 30 * SECOND, duration);
    let log = log(root.section("log"));
    let bounds = bounds(root);
    let tls = tls_policies(root.section("tls"), mode, base, bounds.handshake_timeout);
    let mqtt = mqtt(root.section("mqtt"));
    let section = root.section("tokens");
    let token_places = token_places(&section);
    let assertions = assertions(root.section("assertions"), base);
    let tokens = tokens(section, root, base);
    let admin = admin(root.section("admin"), tokens.revocations.is_some());
    let upstreams = upstreams(root, base);
    let bindings = Bindings::read(root, mode);
    let callouts = Callouts::read(root, mode, base);
    let doors = Doors {
        upstreams: &upstreams,
        bindings: &bindings,
        callouts: &callouts,
    };
    let listeners = listeners(root, &tls, &doors, mode);
    refuse_shared_addresses(root, &listeners, admin.as_ref());
    let fields = Fields::shared(root);
    let routes = routes(root, &listeners, &doors, &fields);
    callouts.refuse_unused(root, &routes, &listeners);
    let (callouts, bindings) = (callouts.into_all(), bindings.into_all());
    field_rules::refuse_contradictions(root, &routes, &callouts, &bindings, mode);
    refuse_tokens_without_providers(root, &routes, &listeners, &tokens);
    refuse_certificates_that_nobody_shows(root, &routes, mode);
    refuse_assertions_of_nothing(root, &routes, mode);
    Settings {
        mode,
        workers: if workers == 0 {
            available_workers()
        } else {
            workers
        },
        drain_timeout,
        admin,
        log,
        limits: bounds.requests,
        crowd: bounds.crowd,
        handshake_timeout: bounds.handshake_timeout,
        mqtt,
        tokens,
        token_places,
        callouts,
        assertions: are_used(&assertions, &routes).then_some(assertions),
        bindings: bindings.into(),
        listeners,
        upstreams,
        answer_fields: fields.answers,
        hsts: fields.hsts,
        routes,
    }
}

fn available_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn log(section: Section<'_, '_>) -> LogSettings {
    let settings = LogSettings {
        level: section.read("level", Level::Info, one_of(LEVELS)),
        format: section.read("format", Format::Json, one_of(FORMATS)),
        access: section.read("access", true, boolean),
    };
    section.finish();
    settings
}

/// What `[tls]` says: its own policy first, then those by name.
struct TlsPolicies {
    policies: Vec<PolicySettings>,
    without_server_name: Option<String>,
    handshake_timeout: Duration,
}

fn tls_policies(
    section: Section<'_, '_>,
    mode: Mode,
    base: &Path,
    handshake_timeout: Duration,
) -> TlsPolicies {
    let client_auth = match mode {
        Mode::Certificate => ClientAuth::Required,
        Mode::Key => ClientAuth::Off,
    };
    let standard = PolicySettings {
        name: DEFAULT_POLICY.into(),
        server_names: vec![],
        certificate: base.join("certs/portcullis-server.crt"),
        key: base.join("certs/portcullis-server.key"),
        client_auth,
        client_ca: vec![base.join("certs/ca.crt")],
        min_version: MinVersion::Tls13,
        legacy_certificates: false,
        max_chain_depth: 4,
        resumption: true,
    };
    let default = policy(&section, standard, mode, base);
    let without_server_name = section.read("without_server_name", DEFAULT_POLICY.to_owned(), text);
    let mut policies = vec![default.clone()];
    let named = section.section("policies");
    for (name, section) in named.named_sections() {
        let inherited = PolicySettings {
            name: name.clone(),
            ..default.clone()
        };
        if name == DEFAULT_POLICY || name == "refuse" {
            section.problem(
                "server_names",
                format!("a policy cannot be called \"{name}\""),
            );
        }
        let mut settings = policy(&section, inherited, mode, base);
        settings.server_names = patterns(&section, "server_names");
        for other in &policies {
            for name in &settings.server_names {
                if other.server_names.contains(name) {
                    let message = format!("\"{name}\" is of policy \"{}\" already", other.name);
                    section.problem("server_names", message);
                }
            }
        }
        section.finish();
        policies.push(settings);
    }
    named.finish();
    let known =
        without_server_name == "refuse" || policies.iter().any(|p| p.name == without_server_name);
    if !known {
        let message =
            format!("must be \"refuse\" or the name of a policy, not \"{without_server_name}\"");
        section.problem("without_server_name", message);
    }
    section.finish();
    let without_server_name = (without_server_name != "refuse").then_some(without_server_name);
    TlsPolicies {
        policies,
        without_server_name,
        handshake_timeout,
    }
}

fn policy(
    section: &Section<'_, '_>,
    inherited: PolicySettings,
    mode: Mode,
    base: &Path,
) -> PolicySettings {
    let path =
        |name, default: PathBuf| section.read(name, default, |raw| Ok(base.join(text(raw)?)));
    let paths = |raw| {
        Ok(list(raw)?
            .into_iter()
            .map(|item| base.join(item))
            .collect::<Vec<_>>())
    };
    let settings = PolicySettings {
        certificate: path("certificate", inherited.certificate),
        key: path("key", inherited.key),
        client_auth: client_auth(section, mode).unwrap_or(inherited.client_auth),
        client_ca: section.read("client_ca", inherited.client_ca, paths),
        min_version: section.read("min_version", inherited.min_version, one_of(VERSIONS)),
        legacy_certificates: section.read(
            "legacy_certificates",
            inherited.legacy_certificates,
            boolean,
        ),
        max_chain_depth: section.read("max_chain_depth", inherited.max_chain_depth, count(0..=16)),
        resumption: section.read("resumption", inherited.resumption, boolean),
        ..inherited
    };
    if settings.client_auth != ClientAuth::Off && settings.client_ca.is_empty() {
        section.problem(
            "client_ca",
            "must name a file, since clients show certificates",
        );
    }
    settings
}

/// In key mode no certificate decides anything, so asking for one would promise what is not done.
fn client_auth(section: &Section<'_, '_>, mode: Mode) -> Option<ClientAuth> {
    let value = section.read_optional("client_auth", one_of(CLIENT_AUTH))?;
    if mode == Mode::Key && value != ClientAuth::Off {
        section.problem(
            "client_auth",
            "must be \"off\" while auth = \"key\": no certificate is asked for",
        );
    }
    Some(value)
}

fn mqtt(section: Section<'_, '_>) -> mqtt::Settings {
    /// What MQTT itself allows: four bytes of length, and the fixed header.
    const MOST: u64 = 268_435_455 + 5;
    let bytes = |name, default: u64| {
        let amount = section.read(name, default, |raw| match size(raw)? {
            amount @ 1..=MOST => Ok(amount),
            _ => Err(format!("must be from 1B to {MOST}B")),
        });
        u32::try_from(amount).unwrap_or(u32::MAX)
    };
    let settings = mqtt::Settings {
        connect_timeout: section.read("connect_timeout", 10 * SECOND, duration),
        max_connect: bytes("max_connect", 64 << 10),
        max_packet: bytes("max_packet", MOST),
        missing_password: section.read(
            "missing_password",
            MissingPassword::Fill,
            one_of(MISSING_PASSWORD),
        ),
        enhanced_auth: section.read("enhanced_auth", false, boolean),
        reason_strings: section.read("reason_strings", false, boolean),
        server_reference: section.read_optional("server_reference", server_reference),
        bridges: section.read("bridges", false, boolean),
    };
    section.finish();
    settings
}

/// Where clients are sent, as a packet can say it.
fn server_reference(raw: Raw) -> Result<String, String> {
    let text = text(raw)?;
    if text.len() > usize::from(u16::MAX) {
        return Err(format!("must not be longer than {} bytes", u16::MAX));
    }
    if !is_string(&text) {
        return Err(format!("{text:?} has a character that MQTT does not carry"));
    }
    Ok(text)
}

/// What routes and MQTT listeners refer to by name.
pub(super) struct Doors<'a> {
    pub(super) upstreams: &'a [Arc<upstream::Settings>],
    pub(super) bindings: &'a Bindings,
    pub(super) callouts: &'a Callouts,
}

fn listeners(
    root: &Section<'_, '_>,
    tls: &TlsPolicies,
    doors: &Doors<'_>,
    mode: Mode,
) -> Vec<ListenerSettings> {
    let all = root.section("listeners");
    let sections = all.named_sections();
    if sections.is_empty() {
        root.problem("listeners", "no listener is configured");
    }
    let mut listeners = Vec::new();
    for (name, section) in sections {
        listeners.extend(listener(&section, name, tls, doors, mode));
        section.finish();
    }
    all.finish();
    refuse_unused_policies(root, tls, &listeners);
    listeners
}

fn listener(
    section: &Section<'_, '_>,
    name: String,
    tls: &TlsPolicies,
    doors: &Doors<'_>,
    mode: Mode,
) -> Option<ListenerSettings> {
    let address = section.read_required("address", parsed);
    let proxies = section.read("proxy_protocol_from", Proxies::default(), networks);
    let protocol = section.read(
        "protocol",
        ListenerProtocol::Https,
        one_of(LISTENER_PROTOCOLS),
    );
    let (requirement, binding, callout) = match protocol {
        ListenerProtocol::Https | ListenerProtocol::Http => (Requirement::Client, 0, None),
        ListenerProtocol::Mqtts | ListenerProtocol::Mqtt => {
            let binding = doors.bindings.choose(section, Use::Mqtt);
            let requirement = mqtt_requirement(section, mode);
            let callout = doors.callouts.choose(section, Use::Mqtt, requirement);
            (requirement, binding, callout)
        }
    };
    let tls = match protocol {
        ListenerProtocol::Https => {
            let spoken = &["h2", "http/1.1", "http/1.0"];
            Some(listener_tls(section, tls, mode, spoken))
        }
        ListenerProtocol::Mqtts => Some(listener_tls(section, tls, mode, &["mqtt"])),
        ListenerProtocol::Http => None,
        ListenerProtocol::Mqtt => {
            let by_certificate = matches!(requirement, Requirement::Client | Requirement::Both);
            if mode == Mode::Certificate && by_certificate {
                let message = "is \"mqtt\", without TLS, where no client shows a certificate: with \
                               auth = \"x509\" it would refuse everybody";
                section.problem("protocol", message);
            }
            None
        }
    };
    let quotas = match protocol {
        ListenerProtocol::Https | ListenerProtocol::Http => quota::Settings::default(),
        ListenerProtocol::Mqtts | ListenerProtocol::Mqtt => quotas(section),
    };
    let redirect = match protocol {
        ListenerProtocol::Https | ListenerProtocol::Http => redirect(section, &everything()),
        ListenerProtocol::Mqtts | ListenerProtocol::Mqtt => None,
    };
    let service = match protocol {
        ListenerProtocol::Https | ListenerProtocol::Http => Service::Http,
        ListenerProtocol::Mqtts | ListenerProtocol::Mqtt => {
            let known = |raw| known_upstream(&text(raw)?, doors.upstreams);
            Service::Mqtt(section.read_required("upstream", known)?)
        }
    };
    Some(ListenerSettings {
        name,
        address: address?,
        proxies,
        tls,
        service,
        redirect,
        quotas,
        requirement,
        binding,
        callout,
    })
}

/// Networks, or single addresses.
fn networks(raw: super::value::Raw) -> Result<Proxies, String> {
    let network = |item: &str| {
        let address = item.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| item.parse());
        network
            .map_err(|_| format!("\"{item}\" is no address and no network, as in \"10.0.0.0/8\""))
    };
    each(raw, network).map(Proxies::new)
}

/// What clients of a listener without routes must be.
fn mqtt_requirement(section: &Section<'_, '_>, mode: Mode) -> Requirement {
    let requirement = section.read("credential", Requirement::Client, one_of(REQUIREMENTS));
    match (requirement, mode) {
        (Requirement::None, _) => {
            section.problem("credential", "must not be \"none\" for MQTT");
        }
        (Requirement::Both, Mode::Key) => {
            let message = "must not be \"both\" while auth = \"key\": a CONNECT has one password";
            section.problem("credential", message);
        }
        (Requirement::Client | Requirement::User | Requirement::Any | Requirement::Both, _) => {}
    }
    requirement
}

/// A listener's policies: all of them, with its own default in front.
fn listener_tls(
    section: &Section<'_, '_>,
    tls: &TlsPolicies,
    mode: Mode,
    alpn: &'static [&'static str],
) -> tls::Settings {
    let mut policies = tls.policies.clone();
    let chosen = section.read("default_policy", 0, |raw| {
        let name = text(raw)?;
        let known = policies.iter().position(|policy| policy.name == name);
        known.ok_or_else(|| format!("no TLS policy is called \"{name}\""))
    });
    policies[..=chosen].rotate_right(1);
    if let Some(own) = client_auth(section, mode) {
        for policy in &mut policies {
            policy.client_auth = own;
        }
    }
    let without_server_name = match tls.without_server_name.as_deref() {
        Some(DEFAULT_POLICY) => Some(policies[0].name.clone()),
        other => other.map(str::to_owned),
    };
    tls::Settings {
        policies,
        without_server_name,
        alpn,
        handshake_timeout: tls.handshake_timeout,
    }
}

/// A policy that neither a server name nor a listener leads to would be read and never met.
fn refuse_unused_policies(
    root: &Section<'_, '_>,
    tls: &TlsPolicies,
    listeners: &[ListenerSettings],
) {
    for policy in tls
        .policies
        .iter()
        .skip(1)
        .filter(|policy| policy.server_names.is_empty())
    {
        let is_default = |listener: &ListenerSettings| {
            let first = listener.tls.as_ref().and_then(|tls| tls.policies.first());
            first.is_some_and(|first| first.name == policy.name)
        };
        if !listeners.iter().any(is_default) {
            let key = format!("policies.{}", policy.name);
            let message = "names no server and is no listener's default: nobody would meet it";
            root.section("tls").problem(&key, message);
        }
    }
}

/// A route that demands tokens where nobody issues any would refuse everybody.
fn refuse_tokens_without_providers(
    root: &Section<'_, '_>,
    routes: &[Arc<Route>],
    listeners: &[ListenerSettings],
    tokens: &token::Settings,
) {
    let routes = routes
        .iter()
        .map(|route| ("routes", &route.name, route.requirement));
    let listeners = listeners
        .iter()
        .map(|listener| ("listeners", &listener.name, listener.requirement));
    let mut all = routes.chain(listeners);
    if let Some((kind, name, _)) = all.find(|(_, _, requirement)| requirement.takes_tokens())
        && tokens.accepts_nothing()
    {
        let message = format!(
            "is empty, as are api_keys.list and introspection.url, but {kind}.{name} takes bearer tokens"
        );
        root.problem("providers", message);
    }
}

/// In key mode no certificate is asked for, so there is none that an upstream could be told of.
fn refuse_certificates_that_nobody_shows(
    root: &Section<'_, '_>,
    routes: &[Arc<Route>],
    mode: Mode,
) {
    if mode == Mode::Certificate {
        return;
    }
    for route in routes {
        if !route.forward_certificate.is_empty() {
            let key = format!("{}.forward_certificate", route.name);
            let message = "must be empty while auth = \"key\": no client shows a certificate";
            root.section("routes").problem(&key, message);
        }
    }
}

pub(super) fn patterns(section: &Section<'_, '_>, name: &str) -> Vec<HostPattern> {
    section.read(name, vec![], |raw| each(raw, str::parse))
}
