//! `[routes.X.cors]`: which pages of other origins may read a route's answers.

use hyper::header::{HeaderName, HeaderValue};

use super::check::MINUTE;
use super::conditions::method;
use super::document::Section;
use super::value::{Raw, boolean, duration, each, list};
use crate::route::{Cors, OriginPattern};

pub(super) fn cors(route: &Section<'_, '_>) -> Option<Cors> {
    let section = route.section("cors");
    let cors = Cors {
        origins: section.read("origins", vec![], origins),
        methods: section.read("methods", None, methods),
        headers: section.read("headers", None, names),
        expose_headers: section.read("expose_headers", None, names),
        credentials: section.read("credentials", false, boolean),
        max_age: section.read("max_age", 10 * MINUTE, duration),
    };
    refuse_contradictions(&section, &cors);
    section.finish();
    (!cors.origins.is_empty()).then_some(cors)
}

fn refuse_contradictions(section: &Section<'_, '_>, cors: &Cors) {
    if !section.has("origins") && section.is_present() {
        section.problem("origins", "is missing: whose pages may read answers?");
    }
    if !cors.credentials {
        return;
    }
    // Fetch: with credentials browsers take no "*", and any page could act as its reader.
    if cors.origins.contains(&OriginPattern::Any) {
        let message = "must not be \"*\" beside credentials: any page could act as its reader";
        section.problem("origins", message);
    }
    let lists = [
        ("methods", &cors.methods),
        ("headers", &cors.headers),
        ("expose_headers", &cors.expose_headers),
    ];
    for (name, list) in lists {
        if list.as_ref().is_some_and(|list| list == "*") {
            section.problem(
                name,
                "must not be \"*\" beside credentials, where it means a name",
            );
        }
    }
}

fn origins(raw: Raw) -> Result<Vec<OriginPattern>, String> {
    let origin = |item: &str| item.parse().map_err(|error| format!("\"{item}\" {error}"));
    each(raw, origin)
}

fn methods(raw: Raw) -> Result<Option<HeaderValue>, String> {
    list_of(raw, |item| method(item).map(|method| method.to_string()))
}

fn names(raw: Raw) -> Result<Option<HeaderValue>, String> {
    list_of(raw, |item| {
        let name: Option<HeaderName> = item.parse().ok();
        let name = name.ok_or_else(|| format!("\"{item}\" is no field"))?;
        Ok(name.to_string())
    })
}

/// `["*"]`, or items that `read` knows, as a list for browsers.
fn list_of(
    raw: Raw,
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<Option<HeaderValue>, String> {
    let items = list(raw)?;
    if items == ["*"] {
        return Ok(Some(HeaderValue::from_static("*")));
    }
    let item = |item: &String| match item.as_str() {
        "*" => Err("\"*\" stands alone, or not at all".to_owned()),
        item => read(item),
    };
    let items: Result<Vec<String>, _> = items.iter().map(item).collect();
    let joined = HeaderValue::try_from(items?.join(", ")).ok();
    Ok(joined.filter(|list| !list.is_empty()))
}
