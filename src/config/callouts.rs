//! `[callouts.X]`: other services that are asked about clients, and who is asked about whom.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HOST;

use super::ListenerSettings;
use super::bindings::Use;
use super::claims::upstream_field;
use super::document::Section;
use super::providers::url;
use super::value::{Raw, boolean, count, duration, each, list, one_of, parsed, text};
use crate::access::Mode;
use crate::callout::{
    Address, Ask, AskedBy, Field, GrpcQuestion, HttpQuestion, Memory, Service, Settings, Template,
};
use crate::fetch::{self, HeaderName, Method};
use crate::http::{ends_here, is_identity};
use crate::route::{Requirement, Route};

/// How a service is asked.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    Grpc(Service),
}

const KINDS: &[(&str, Kind)] = &[
    ("http", Kind::Http),
    ("clients_v1", Kind::Grpc(Service::ClientsV1)),
    ("broker_auth_v1", Kind::Grpc(Service::BrokerAuthV1)),
];

const SECOND: Duration = Duration::from_secs(1);

/// All call-outs.
pub(super) struct Callouts {
    all: Vec<Settings>,
    /// Who is asked about clients where nothing else is said, an index.
    usual: Option<usize>,
}

impl Callouts {
    pub(super) fn read(root: &Section<'_, '_>, mode: Mode, base: &Path) -> Self {
        let section = root.section("callouts");
        let mut all = Vec::new();
        for (name, section) in section.named_sections() {
            all.extend(callout(&section, name, mode, base));
            section.finish();
        }
        section.finish();
        let usual = root.read("callout", None, |raw| known(raw, &all));
        Self { all, usual }
    }

    /// The `callout` of a route or listener with this requirement, as an index.
    pub(super) fn choose(
        &self,
        section: &Section<'_, '_>,
        used: Use,
        requirement: Requirement,
    ) -> Option<usize> {
        let knows_clients = match requirement {
            Requirement::Client | Requirement::Any | Requirement::Both => true,
            Requirement::User | Requirement::None => false,
        };
        let usual = self.usual.filter(|_| knows_clients);
        let chosen = section.read("callout", usual, |raw| known(raw, &self.all));
        let settings = &self.all[chosen?];
        if settings.is_about_clients() && !knows_clients {
            let message = "tells the {secret} of clients, of whom the credential asks for none";
            section.problem("callout", message);
        }
        if used != Use::Http && settings.fields().any(Field::is_of_request) {
            let message = "tells of a request, which MQTT has not";
            section.problem("callout", message);
        }
        chosen
    }

    /// One that nobody names would be taken for a guard, and guard nothing.
    pub(super) fn refuse_unused(
        &self,
        root: &Section<'_, '_>,
        routes: &[Arc<Route>],
        listeners: &[ListenerSettings],
    ) {
        let routes = routes.iter().filter_map(|route| route.callout);
        let listeners = listeners.iter().filter_map(|listener| listener.callout);
        let used: HashSet<usize> = routes.chain(listeners).collect();
        for (index, callout) in self.all.iter().enumerate() {
            if !used.contains(&index) {
                let message = "is asked by no route and no MQTT listener: `callout` names it";
                root.section("callouts").problem(&callout.name, message);
            }
        }
    }

    pub(super) fn into_all(self) -> Vec<Settings> {
        self.all
    }
}

/// The call-out of this name, as an index; nobody is asked if there is no name.
fn known(raw: Raw, all: &[Settings]) -> Result<Option<usize>, String> {
    if raw == Raw::Text(String::new()) {
        return Ok(None);
    }
    let name = text(raw)?;
    let index = all.iter().position(|known| known.name == name);
    let index = index.ok_or_else(|| format!("no call-out is called \"{name}\""))?;
    Ok(Some(index))
}

fn callout(section: &Section<'_, '_>, name: String, mode: Mode, base: &Path) -> Option<Settings> {
    /// No decision is as long.
    const MOST: usize = 64 << 10;
    let kind = section.read("kind", Kind::Http, one_of(KINDS));
    let ask = match kind {
        Kind::Http => http_question(section).map(|question| Ask::Http(Box::new(question))),
        Kind::Grpc(service) => grpc_question(section, service).map(Ask::Grpc),
    };
    let id_header = section.read_optional("id_header", |raw| upstream_field(&text(raw)?));
    let entries = |name, default| {
        let number: usize = section.read(name, default, count(0..=100_000_000));
        u64::try_from(number).unwrap_or(u64::MAX)
    };
    let memory = Memory {
        entries: entries("cache_entries", 100_000),
        ttl: section.read("cache_ttl", 60 * SECOND, duration),
        refused_entries: entries("refused_entries", 10_000),
        refused_ttl: section.read("refused_ttl", 5 * SECOND, duration),
    };
    let allow_on_failure = section.read("danger_allow_on_failure", false, boolean);
    let fetch = fetch::Settings {
        timeout: section.read("timeout", 2 * SECOND, duration),
        max_size: MOST,
        ca: section.read("ca", vec![], |raw| {
            Ok(list(raw)?.into_iter().map(|file| base.join(file)).collect())
        }),
        allow_http: section.read("danger_allow_http", false, boolean),
        idle_connections: 16,
        version: match kind {
            Kind::Http => fetch::Version::Http1,
            Kind::Grpc(_) => fetch::Version::Http2,
        },
    };
    let settings = Settings {
        name,
        ask: ask?,
        id_header,
        allow_on_failure,
        memory,
        fetch,
    };
    refuse_what_proves_nothing(section, &settings, mode);
    Some(settings)
}

fn http_question(section: &Section<'_, '_>) -> Option<HttpQuestion> {
    let url = section.read_required("url", parsed::<Address>);
    let question = HttpQuestion {
        method: section.read("method", AskedBy::Method(Method::POST), asked_by),
        headers: section.read("headers", vec![], |raw| each(raw, header)),
        body: section.read_optional("body", parsed::<Template>),
        allow_status: section.read("allow_status", vec![200], statuses),
        allow_field: section.read_optional("allow_field", text),
        forward: section.read("forward", vec![], |raw| each(raw, upstream_field)),
        id_field: section.read("id_field", "id".to_owned(), text),
        url: url?,
    };
    Some(question)
}

fn grpc_question(section: &Section<'_, '_>, service: Service) -> Option<GrpcQuestion> {
    let url = section.read_required("url", |raw| match url(raw)? {
        url if url.query().is_none() && url.fragment().is_none() => Ok(url),
        url => Err(format!(
            "\"{url}\" must have no query, as a service has none"
        )),
    });
    Some(GrpcQuestion { url: url?, service })
}

fn refuse_what_proves_nothing(section: &Section<'_, '_>, settings: &Settings, mode: Mode) {
    if settings.is_unencrypted() && !settings.fetch.allow_http {
        let message = "is false, but secrets would go by http, where anybody can read them";
        section.problem("danger_allow_http", message);
    }
    let tells_apart = |field: &Field| match field {
        Field::Secret | Field::Remote | Field::Header(_) => true,
        Field::Fingerprint => mode == Mode::Certificate,
        Field::ClientId
        | Field::UserName
        | Field::Protocol
        | Field::Method
        | Field::Host
        | Field::Path
        | Field::Domain
        | Field::Query
        | Field::RequestId => false,
    };
    if !settings.fields().any(tells_apart) {
        // What is remembered of one client would hold for everybody.
        let message = "must hold {secret}, {header.NAME} or {remote}, or a field of headers must: \
                       the service could not tell one client from another";
        section.problem("body", message);
    }
    refuse_forgeries(section, settings);
}

/// What the gateway knows better than the client is not asked about in the client's words.
fn refuse_forgeries(section: &Section<'_, '_>, settings: &Settings) {
    for field in settings.fields() {
        let Field::Header(name) = field else {
            continue;
        };
        if is_identity(name.as_str()) || ends_here(name) {
            let message = format!(
                "{{header.{name}}} is not the client's to say; {{remote}}, {{host}}, \
                 {{fingerprint}} and {{request_id}} are as the gateway knows them"
            );
            section.problem("headers", message);
        }
    }
}

/// A method, or that of the request.
fn asked_by(raw: Raw) -> Result<AskedBy, String> {
    match text(raw.clone())?.as_str() {
        "{method}" => Ok(AskedBy::TheSame),
        _ => parsed(raw).map(AskedBy::Method),
    }
}

/// `name: template`.
fn header(entry: &str) -> Result<(HeaderName, Template), String> {
    let wrong =
        || format!("\"{entry}\" is not a field, as in \"authorization: Client {{secret}}\"");
    let (name, template) = entry.split_once(':').ok_or_else(wrong)?;
    let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
    // Where a question ends, and how it is carried, is for those who speak HTTP.
    if ends_here(&name) && name != HOST {
        return Err(format!("\"{name}\" is set anyhow, or for one connection"));
    }
    let template = template.trim().parse::<Template>();
    Ok((name, template.map_err(|error| error.to_string())?))
}

fn statuses(raw: Raw) -> Result<Vec<u16>, String> {
    let status = |item: &str| {
        let number = item.parse().ok();
        let is_success = |number: &u16| (200..300).contains(number);
        number
            .filter(is_success)
            .ok_or_else(|| format!("\"{item}\" is no status from 200 to 299"))
    };
    each(raw, status)
}
