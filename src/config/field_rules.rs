//! `[request_headers]` and `[response_headers]`, for everything and for one route.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};

use super::document::Section;
use super::value::{Raw, boolean, duration, each};
use crate::access::{Binding, Mode, SecretRule};
use crate::callout;
use crate::credential::Place;
use crate::http::{Direction, is_guarded};
use crate::route::{FieldAction, FieldRule, FieldRules, FieldTemplate, Route, Scope};

/// What is changed in requests and in answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    pub(super) requests: FieldRules,
    pub(super) answers: FieldRules,
    /// What browsers are told of TLS; of everything alone.
    pub(super) hsts: Option<HeaderValue>,
}

impl Fields {
    /// For all routes, and for answers to requests that have none.
    pub(super) fn shared(root: &Section<'_, '_>) -> Self {
        let (requests, answers) = (root.section(REQUESTS), root.section(ANSWERS));
        let fields = Self {
            requests: rules(&requests, Direction::Request, Scope::Routes),
            answers: rules(&answers, Direction::Answer, Scope::Everywhere),
            hsts: hsts(&answers),
        };
        requests.finish();
        answers.finish();
        fields
    }

    /// For one route: what is shared comes first, so that the route has the last word.
    pub(super) fn of_route(route: &Section<'_, '_>, scope: Scope<'_>, shared: &Self) -> Self {
        let (requests, answers) = (route.section(REQUESTS), route.section(ANSWERS));
        let fields = Self {
            requests: rules(&requests, Direction::Request, scope).after(&shared.requests),
            answers: rules(&answers, Direction::Answer, scope).after(&shared.answers),
            hsts: None,
        };
        requests.finish();
        answers.finish();
        fields
    }
}

const REQUESTS: &str = "request_headers";
const ANSWERS: &str = "response_headers";

/// RFC 6797 §6.1; `preload` as those who keep the lists of browsers ask for it.
fn hsts(section: &Section<'_, '_>) -> Option<HeaderValue> {
    const YEAR: u64 = 31_536_000;
    let age = section.read_optional("hsts", |raw| match raw {
        // Tells browsers to forget it.
        Raw::Text(text) if text == "0s" => Ok(0),
        raw => duration(raw).map(|age| age.as_secs()),
    });
    let with_subdomains = section.read("hsts_subdomains", false, boolean);
    let preload = section.read("hsts_preload", false, boolean);
    if age.is_none() {
        for name in ["hsts_subdomains", "hsts_preload"] {
            if section.has(name) && !section.has("hsts") {
                section.problem(name, "has no meaning without hsts");
            }
        }
    }
    let age = age?;
    if preload && !(with_subdomains && age >= YEAR) {
        let message = "must be false unless hsts is at least \"365d\" and hsts_subdomains true";
        section.problem("hsts_preload", message);
    }
    let subdomains = if with_subdomains {
        "; includeSubDomains"
    } else {
        ""
    };
    let preload = if preload { "; preload" } else { "" };
    HeaderValue::try_from(format!("max-age={age}{subdomains}{preload}")).ok()
}

/// What is removed, then what is set, then what is added.
fn rules(section: &Section<'_, '_>, direction: Direction, scope: Scope<'_>) -> FieldRules {
    let mut rules = section.read("remove", vec![], |raw| {
        let removal = |entry: &str| {
            let name = name(entry, direction)?;
            let action = FieldAction::Remove;
            Ok(FieldRule { name, action })
        };
        each(raw, removal)
    });
    let mut read = |key, action: fn(FieldTemplate) -> FieldAction| {
        let rule = |entry: &str| rule(entry, direction, scope, action);
        rules.extend(section.read(key, vec![], |raw| each(raw, rule)));
    };
    read("set", FieldAction::Set);
    read("add", FieldAction::Add);
    FieldRules::new(rules)
}

/// `name: value`.
fn rule(
    entry: &str,
    direction: Direction,
    scope: Scope<'_>,
    action: fn(FieldTemplate) -> FieldAction,
) -> Result<FieldRule, String> {
    let wrong =
        || format!("\"{entry}\" is not a field and its value, as in \"x-tenant: {{host}}\"");
    let (name, value) = entry.split_once(':').ok_or_else(wrong)?;
    let name = self::name(name, direction)?;
    let template = FieldTemplate::parse(value.trim_matches([' ', '\t']), scope);
    let template = template.map_err(|error| format!("the value of {name} {error}"))?;
    Ok(FieldRule {
        name,
        action: action(template),
    })
}

fn name(text: &str, direction: Direction) -> Result<HeaderName, String> {
    let text = text.trim();
    let name: HeaderName = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no field"))?;
    if is_guarded(&name, direction) {
        return Err(format!("\"{name}\" is the gateway's own{}", instead(&name)));
    }
    // Where `_` and `-` are one, the client's own would have to go in both spellings.
    if direction == Direction::Request && name.as_str().contains('_') {
        return Err(format!("\"{name}\" must have no underscore"));
    }
    Ok(name)
}

/// What sets such a field instead.
fn instead(name: &HeaderName) -> &'static str {
    match name.as_str() {
        "host" => "; see `host` of [upstreams.http]",
        "strict-transport-security" => "; see `hsts`",
        name if name.starts_with("access-control-") => "; see [routes.api.cors]",
        name if name.starts_with("client-cert") || name.starts_with("x-ssl-client-") => {
            "; see `forward_certificate`"
        }
        _ => "",
    }
}

/// The rules between those about fields and whatever else is said of the same fields.
pub(super) fn refuse_contradictions(
    root: &Section<'_, '_>,
    routes: &[Arc<Route>],
    callouts: &[callout::Settings],
    bindings: &[Binding],
    mode: Mode,
) {
    let told = told_by_others(routes, callouts, bindings);
    for route in routes {
        let problem = |message: String| {
            let key = format!("{}.request_headers", route.name);
            root.section("routes").problem(&key, message);
        };
        for rule in route.request_fields.iter() {
            let name = rule.name.as_str();
            if told.contains(&name) {
                problem(format!(
                    "\"{name}\" is a field of a claim, of the call-out or of a binding"
                ));
            }
        }
        let all = route.request_fields.iter();
        let all = all.chain(route.answer_fields.iter());
        for field in all.flat_map(FieldRule::certificate_fields) {
            let field = field.to_string();
            if let Some(reason) = why_untold(&field, bindings, mode) {
                problem(format!("{{{field}}} {reason}"));
            }
        }
    }
}

/// The fields in which claims are told, what the call-out says, and what is compared with
/// certificates.
fn told_by_others<'a>(
    routes: &'a [Arc<Route>],
    callouts: &'a [callout::Settings],
    bindings: &'a [Binding],
) -> Vec<&'a str> {
    let claims = routes.iter().flat_map(|route| &route.forward_claims);
    let claims = claims.map(|claim| &claim.field);
    let granted = callouts.iter();
    let granted = granted.flat_map(callout::Settings::upstream_fields);
    let told = claims.chain(granted).map(HeaderName::as_str);
    told.chain(bindings.iter().flat_map(compared)).collect()
}

/// Why a field of certificates cannot be told.
fn why_untold(field: &str, bindings: &[Binding], mode: Mode) -> Option<&'static str> {
    if mode == Mode::Key {
        return Some("has no value while auth = \"key\": no client shows a certificate");
    }
    let is_secret = bindings.iter().any(|binding| hides(binding, field));
    is_secret.then_some("is what a binding makes the client's secret of")
}

/// The fields that are compared with certificates.
fn compared(binding: &Binding) -> impl Iterator<Item = &str> {
    binding.places().filter_map(|place| match place {
        Place::Header(name) => Some(name.as_str()),
        Place::UserName | Place::ClientId | Place::Query(_) => None,
    })
}

/// Whether the client secret is made of this field of the certificate.
fn hides(binding: &Binding, field: &str) -> bool {
    match &binding.secret {
        SecretRule::Made(template) => template.uses(field),
        SecretRule::CommonName | SecretRule::Presented => false,
    }
}
