//! The keys that say where a route leads, and the redirect of a listener.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::document::Section;
use super::upstreams::known_upstream;
use super::value::{Raw, integer, one_of, text};
use crate::route::{Destination, FixedAnswer, Location, PathMatch, Redirect, Rewrite};
use crate::upstream;

/// RFC 9110 §15.4; of those not here, none names one other place.
const STATUSES: &[(&str, StatusCode)] = &[
    ("301", StatusCode::MOVED_PERMANENTLY),
    ("302", StatusCode::FOUND),
    ("303", StatusCode::SEE_OTHER),
    ("307", StatusCode::TEMPORARY_REDIRECT),
    ("308", StatusCode::PERMANENT_REDIRECT),
];

/// The keys of a route that are about its upstream.
const OF_UPSTREAMS: [&str; 14] = [
    "protocol",
    "strip_prefix",
    "rewrite",
    "origins",
    "max_body",
    "response_timeout",
    "total_timeout",
    "idle_timeout",
    "keep_query_credential",
    "early_hints",
    "forward_claims",
    "forward_certificate",
    "forward_assertion",
    "request_headers",
];

/// What can be published: the keys of assertions.
const PUBLICATIONS: &[(&str, ())] = &[("jwks", ())];

/// Where a route for the paths `matched` leads: it must say so in one way.
pub(super) fn destination(
    section: &Section<'_, '_>,
    matched: &PathMatch,
    upstreams: &[Arc<upstream::Settings>],
) -> Option<Destination> {
    let upstream = section.read_optional("upstream", |raw| known_upstream(&text(raw)?, upstreams));
    let redirect = redirect(section, matched);
    let answer = answer(section);
    let published = section.read_optional("publish", one_of(PUBLICATIONS));
    let said: Vec<&str> = ["upstream", "redirect", "answer", "publish"]
        .into_iter()
        .filter(|name| section.has(name))
        .collect();
    match said[..] {
        [] => {
            let message =
                "is missing, as are redirect, answer and publish: a route has one of them";
            section.problem("upstream", message);
        }
        [_] => {}
        [_, other, ..] => section.problem(other, format!("stands beside {}", said[0])),
    }
    if !section.has("upstream") {
        for name in OF_UPSTREAMS.into_iter().filter(|name| section.has(name)) {
            section.problem(name, "has no meaning without an upstream");
        }
    }
    let upstream = upstream.map(Destination::Upstream);
    let redirect = redirect.map(Destination::Redirect);
    let answer = answer.map(Destination::Answer);
    let published = published.map(|()| Destination::KeySet);
    upstream.or(redirect).or(answer).or(published)
}

/// Where clients are sent that ask for one of the paths `matched`, and how.
pub(super) fn redirect(section: &Section<'_, '_>, matched: &PathMatch) -> Option<Redirect> {
    let location = section.read_optional("redirect", |raw| {
        let text = text(raw)?;
        Location::parse(&text, matched).map_err(|error| format!("\"{text}\": {error}"))
    });
    let status = StatusCode::PERMANENT_REDIRECT;
    let status = section.read("redirect_status", status, one_of(STATUSES));
    if section.has("redirect_status") && !section.has("redirect") {
        section.problem("redirect_status", "has no meaning without redirect");
    }
    location.map(|location| Redirect { location, status })
}

/// What the upstream sees in place of the path.
pub(super) fn rewrite(section: &Section<'_, '_>, matched: &PathMatch) -> Option<Rewrite> {
    section.read_optional("rewrite", |raw| {
        let text = text(raw)?;
        Rewrite::parse(&text, matched).map_err(|error| format!("\"{text}\": {error}"))
    })
}

fn answer(section: &Section<'_, '_>) -> Option<FixedAnswer> {
    let status = section.read_optional("answer", answer_status);
    let body = section.read("answer_body", String::new(), text);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let content_type = section.read("answer_type", plain, |raw| {
        let text = text(raw)?;
        HeaderValue::try_from(&text).map_err(|_| format!("\"{text}\" is no field value"))
    });
    for name in ["answer_body", "answer_type"] {
        if section.has(name) && !section.has("answer") {
            section.problem(name, "has no meaning without answer");
        }
    }
    let status = status?;
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if is_bodiless && section.has("answer_body") {
        section.problem(
            "answer_body",
            format!("cannot stand with {}", status.as_u16()),
        );
    }
    Some(FixedAnswer {
        status,
        content_type: (!body.is_empty()).then_some(content_type),
        body: Bytes::from(body),
    })
}

fn answer_status(raw: Raw) -> Result<StatusCode, String> {
    let number = integer(200..=599)(raw)?;
    let status = u16::try_from(number).ok();
    let status = status.and_then(|number| StatusCode::from_u16(number).ok());
    // A redirection without a place, and an answer that only a cache can complete.
    status
        .filter(|status| !status.is_redirection())
        .ok_or_else(|| "must not be from 300 to 399: see redirect".to_owned())
}
