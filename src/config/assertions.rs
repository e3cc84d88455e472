//! `[assertions]`, and the keys of a route that are about them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::claims::{claim_path, upstream_field};
use super::document::Section;
use super::value::{Raw, duration, each, list, text};
use crate::access::Mode;
use crate::assertion::{OWN_CLAIMS, Settings};
use crate::route::{AssertedClaim, Destination, ForwardedAssertion, Protocol, Requirement, Route};
use crate::upstream;

/// How assertions are made, if any are.
pub(super) fn assertions(section: Section<'_, '_>, base: &Path) -> Settings {
    let settings = Settings {
        issuer: section.read("issuer", "portcullis".to_owned(), text),
        lifetime: section.read("lifetime", Duration::from_secs(60), lifetime),
        keys: section.read("keys", vec![], |raw| {
            Ok(list(raw)?.into_iter().map(|file| base.join(file)).collect())
        }),
    };
    section.finish();
    settings
}

/// As long as a service has to put up with whatever it holds meanwhile.
fn lifetime(raw: Raw) -> Result<Duration, String> {
    const BOUNDS: std::ops::RangeInclusive<u64> = 5..=300;
    let lifetime = duration(raw)?;
    let is_whole = lifetime.subsec_nanos() == 0;
    if is_whole && BOUNDS.contains(&lifetime.as_secs()) {
        Ok(lifetime)
    } else {
        Err("must be whole seconds, from 5s to 5m".into())
    }
}

/// The token that upstreams of a route get, if they get one.
pub(super) fn forwarded(
    route: &Section<'_, '_>,
    destination: Option<&Destination>,
    upstreams: &[Arc<upstream::Settings>],
) -> Option<ForwardedAssertion> {
    let field = route.read_optional("forward_assertion", |raw| upstream_field(&text(raw)?));
    let upstream = match destination {
        Some(Destination::Upstream(index)) => upstreams.get(*index),
        Some(Destination::Redirect(_) | Destination::Answer(_) | Destination::KeySet) | None => {
            None
        }
    };
    let name = upstream.map_or(String::new(), |upstream| upstream.name.clone());
    let audience = route.read("assertion_audience", name, text);
    let claims = route.read("assertion_claims", vec![], |raw| each(raw, claim));
    for name in ["assertion_audience", "assertion_claims"] {
        if route.has(name) && !route.has("forward_assertion") {
            route.problem(name, "has no meaning without forward_assertion");
        }
    }
    Some(ForwardedAssertion {
        field: field?,
        audience,
        claims,
    })
}

/// `name: claim`, or a claim that keeps its name.
fn claim(entry: &str) -> Result<AssertedClaim, String> {
    let (name, path) = entry.split_once(':').unwrap_or((entry, entry));
    let (name, path) = (name.trim(), path.trim());
    if name.is_empty() || OWN_CLAIMS.contains(&name) {
        return Err(format!(
            "\"{entry}\": \"{name}\" is not to be chosen: the gateway says that itself"
        ));
    }
    Ok(AssertedClaim {
        name: name.to_owned(),
        path: claim_path(Raw::Text(path.to_owned()))?,
    })
}

/// The rules between the keys of one route.
pub(super) fn refuse_contradictions(section: &Section<'_, '_>, route: &Route) {
    let Some(assertion) = &route.forward_assertion else {
        return;
    };
    if route.protocol == Protocol::Mqtt {
        let message = "must be left out where protocol = \"mqtt\", which has no fields";
        section.problem("forward_assertion", message);
    }
    if route.requirement == Requirement::None && route.callout.is_none() {
        let message = "must be left out where credential = \"none\": nothing is decided of anybody";
        section.problem("forward_assertion", message);
    }
    if !assertion.claims.is_empty() && !route.requirement.takes_tokens() {
        let message = "are of tokens, which the route's credential does not take";
        section.problem("assertion_claims", message);
    }
    let told = &route.forward_claims;
    if told.iter().any(|claim| claim.field == assertion.field) {
        let message = "is the field of a claim in forward_claims";
        section.problem("forward_assertion", message);
    }
}

/// A client secret that nobody has compared or been asked about is no decision.
pub(super) fn refuse_assertions_of_nothing(
    root: &Section<'_, '_>,
    routes: &[Arc<Route>],
    mode: Mode,
) {
    if mode == Mode::Certificate {
        return;
    }
    for route in routes {
        let is_verified = route.callout.is_some() || route.requirement != Requirement::Client;
        if route.forward_assertion.is_some() && !is_verified {
            let key = format!("{}.forward_assertion", route.name);
            let message = "must be left out while auth = \"key\" where no callout is asked: what clients \
                           present is verified by the upstream alone";
            root.section("routes").problem(&key, message);
        }
    }
}

/// Whether anybody gets an assertion, or wants to verify one.
pub(super) fn are_used(settings: &Settings, routes: &[Arc<Route>]) -> bool {
    let is_used = |route: &Arc<Route>| {
        route.forward_assertion.is_some() || route.destination == Destination::KeySet
    };
    !settings.keys.is_empty() || routes.iter().any(is_used)
}
