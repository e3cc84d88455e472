//! `/echo`: the request as it arrived, for a user who wants to see what the gateway forwards.
//! Secrets are shown by their length only, wherever they may travel: in `Authorization` and its
//! like, in cookies, and in the query's `authorization`.

use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

pub(crate) fn describe(head: &Parts, body_bytes: usize) -> Value {
    let path = head.uri.path();
    let path_and_query = match head.uri.query() {
        Some(query) => format!("{path}?{}", redacted_query(query)),
        None => path.to_owned(),
    };
    json!({
        "method": head.method.as_str(),
        "path_and_query": path_and_query,
        "headers": headers(head),
        "body_bytes": body_bytes,
    })
}

/// Name to the list of its values, because a name may come more than once.
fn headers(head: &Parts) -> Map<String, Value> {
    let mut shown = Map::new();
    for name in head.headers.keys() {
        let values = head.headers.get_all(name).iter();
        let values = values.map(|value| Value::from(shown_value(name, value)));
        shown.insert(name.to_string(), values.collect());
    }
    shown
}

fn shown_value(name: &HeaderName, value: &HeaderValue) -> String {
    let value = String::from_utf8_lossy(value.as_bytes());
    if name == AUTHORIZATION || name == PROXY_AUTHORIZATION {
        return redacted_credential(&value);
    }
    if name == COOKIE {
        return redacted(&value);
    }
    value.into_owned()
}

/// The scheme stays: it says whether the gateway did its work.
fn redacted_credential(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, secret)) => format!("{scheme} {}", redacted(secret)),
        None => redacted(value),
    }
}

fn redacted_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if names_a_secret(name) => format!("{name}={}", redacted(value)),
        Some(_) | None => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn names_a_secret(name: &str) -> bool {
    percent_decode_str(name)
        .decode_utf8_lossy()
        .eq_ignore_ascii_case("authorization")
}

fn redacted(secret: &str) -> String {
    format!("<redacted, {} characters>", secret.chars().count())
}
