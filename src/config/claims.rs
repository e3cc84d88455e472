//! The keys of a route that are about the claims of tokens.

use hyper::header::HeaderName;

use super::document::Section;
use super::value::{Raw, boolean, each, list, text};
use crate::http::is_reserved;
use crate::route::{ClaimPath, ClaimRule, ClaimTest, ForwardedClaim};

/// What a user's token must say, rule by rule.
pub(super) fn rules(route: &Section<'_, '_>) -> Vec<ClaimRule> {
    let all = route.section("claims");
    let mut rules = Vec::new();
    for (_, section) in all.named_sections() {
        rules.extend(rule(&section));
        section.finish();
    }
    all.finish();
    rules
}

fn rule(section: &Section<'_, '_>) -> Option<ClaimRule> {
    let path = section.read_required("claim", claim_path);
    let equals = section.read_optional("equals", scalar);
    let one_of = section.read_optional("one_of", list);
    let contains = section.read_optional("contains", scalar);
    let exists = section.read("exists", false, boolean);
    let tests = [
        equals.map(|value| ClaimTest::OneOf(vec![value])),
        one_of.map(ClaimTest::OneOf),
        contains.map(ClaimTest::Contains),
        exists.then_some(ClaimTest::Exists),
    ];
    let mut tests = tests.into_iter().flatten();
    let (Some(test), None) = (tests.next(), tests.next()) else {
        let message = "must have one of equals, one_of, contains and exists beside it";
        section.problem("claim", message);
        return None;
    };
    Some(ClaimRule { path: path?, test })
}

/// `field: claim`, each.
pub(super) fn forwarded(route: &Section<'_, '_>) -> Vec<ForwardedClaim> {
    route.read("forward_claims", vec![], |raw| each(raw, forward))
}

fn forward(entry: &str) -> Result<ForwardedClaim, String> {
    let wrong = || format!("\"{entry}\" is not a field and a claim, as in \"x-user: sub\"");
    let (field, path) = entry.split_once(':').ok_or_else(wrong)?;
    let field = upstream_field(field)?;
    let path = ClaimPath::parse(path.trim()).ok_or_else(wrong)?;
    Ok(ForwardedClaim { field, path })
}

/// A field in which upstreams are told something that no client may say.
pub(super) fn upstream_field(name: &str) -> Result<HeaderName, String> {
    let name = name.trim();
    let field = name.parse::<HeaderName>().ok();
    let is_ours = |field: &HeaderName| !is_reserved(field) && !field.as_str().contains('_');
    field.filter(is_ours).ok_or_else(|| {
        format!(
            "\"{name}\" must begin with x-, have no underscore, and be none of the fields that are \
             set anyhow"
        )
    })
}

pub(super) fn claim_path(raw: Raw) -> Result<ClaimPath, String> {
    let path = text(raw)?;
    ClaimPath::parse(&path)
        .ok_or_else(|| format!("\"{path}\" is neither names between dots nor a JSON Pointer"))
}

/// A number or a truth value stands for itself.
fn scalar(raw: Raw) -> Result<String, String> {
    match raw {
        Raw::Integer(number) => Ok(number.to_string()),
        Raw::Boolean(value) => Ok(value.to_string()),
        Raw::Text(text) => Ok(text),
        Raw::List(_) => Err("must not be a list".into()),
    }
}
