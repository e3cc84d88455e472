//! The `authorization` parameter of a query string, or another one for bearer tokens, and the same
//! string without them.
//!
//! Upstreams disagree about what a query string is, so every reading that some of them would use
//! counts: names are compared after decoding and without case, `;` separates as `&` does,
//! `authorization[]` is `authorization` (WHATWG URL §5.1, PHP, Rack, Go before 1.17).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Presented, Source};

const NAME: &str = "authorization";

/// The query string as upstream gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardedQuery {
    /// It holds no credential.
    Unchanged,
    /// What is left once the credential is taken out; `None` if nothing is.
    Without(Option<String>),
}

/// What a parameter's name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As in an `Authorization` field.
    Authorization,
    /// A bearer token by itself.
    Token,
}

/// Moves every credential of `query` into `presented`. The parameter `token_name`, if one is given,
/// holds a bearer token by itself.
pub fn split_credentials(
    query: &str,
    token_name: Option<&str>,
    presented: &mut Presented,
) -> ForwardedQuery {
    if !query
        .split(['&', ';'])
        .any(|pair| kind(pair, token_name).is_some())
    {
        return ForwardedQuery::Unchanged;
    }
    let mut kept = String::with_capacity(query.len());
    for group in query.split('&') {
        // One reader cuts at `;`, the next does not: beside one, no value is certain.
        let ambiguous = group.contains(';');
        for pair in group.split(';') {
            let Some(kind) = kind(pair, token_name) else {
                if !kept.is_empty() {
                    kept.push('&');
                }
                kept.push_str(pair);
                continue;
            };
            let value = if ambiguous { None } else { decoded_value(pair) };
            match (kind, value) {
                (Kind::Token, Some(token)) => presented.add_token(Source::Query, &token),
                (Kind::Authorization, value) => presented.add_query(value.as_deref()),
                (Kind::Token, None) => presented.add_query(None),
            }
        }
    }
    ForwardedQuery::Without((!kept.is_empty()).then_some(kept))
}

/// The values of the parameter `name` in every reading of `query`; one that cannot be decoded, or
/// that stands beside a `;`, becomes bytes that are no text.
pub fn query_values(query: &str, name: &str) -> Vec<Vec<u8>> {
    const NO_TEXT: &[u8] = &[0xff];
    let groups = query.split('&');
    let pairs = groups.flat_map(|group| group.split(';').map(move |pair| (group, pair)));
    let named = pairs.filter(|(_, pair)| has_name(&decoded_name(pair), name));
    let value = |(group, pair): (&str, &str)| {
        let value = decoded_value(pair).filter(|_| !group.contains(';'));
        value.map_or(NO_TEXT.to_vec(), String::into_bytes)
    };
    named.map(value).collect()
}

/// The name of a parameter, decoded.
fn decoded_name(pair: &str) -> Cow<'_, str> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_decode_str(name).decode_utf8_lossy()
}

/// Whether some reader takes `decoded` for `name`.
fn has_name(decoded: &str, name: &str) -> bool {
    let decoded = decoded.split_once('[').map_or(decoded, |(name, _)| name);
    let decoded = decoded.trim_matches(['+', ' ', '\0']);
    decoded.eq_ignore_ascii_case(name)
}

fn kind(pair: &str, token_name: Option<&str>) -> Option<Kind> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    // No spelling of a name is shorter than the name, so most pairs end here.
    let shortest = token_name.map_or(NAME.len(), |token| token.len().min(NAME.len()));
    if name.len() < shortest {
        return None;
    }
    let name = decoded_name(pair);
    if has_name(&name, NAME) {
        return Some(Kind::Authorization);
    }
    let is_token = token_name.is_some_and(|token| has_name(&name, token));
    is_token.then_some(Kind::Token)
}

/// The value as a form decoder reads it: `+` is a space.
fn decoded_value(pair: &str) -> Option<String> {
    let (_, value) = pair.split_once('=')?;
    let value: Cow<'_, str> = if value.contains('+') {
        value.replace('+', " ").into()
    } else {
        value.into()
    };
    percent_decode_str(&value)
        .decode_utf8()
        .ok()
        .map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;
    use crate::secret::Secret;

    fn split(query: &str) -> (ForwardedQuery, Vec<Option<String>>) {
        let mut presented = Presented::nothing();
        let forwarded = split_credentials(query, None, &mut presented);
        let values = presented
            .claims()
            .iter()
            .map(|claim| {
                assert_eq!(claim.source, Source::Query);
                match &claim.value {
                    Value::Secret(secret) | Value::Token(secret) | Value::Opaque(secret) => {
                        Some(secret.expose().to_owned())
                    }
                    Value::Malformed => None,
                }
            })
            .collect();
        (forwarded, values)
    }

    fn without(rest: &str) -> ForwardedQuery {
        ForwardedQuery::Without((!rest.is_empty()).then(|| rest.to_owned()))
    }

    #[test]
    fn the_parameter_is_found_and_removed_in_every_spelling() {
        for (query, rest, values) in [
            ("authorization=A", "", vec![Some("A")]),
            ("authorization=Client%20A", "", vec![Some("A")]),
            ("authorization=Client+A", "", vec![Some("A")]),
            ("x=1&authorization=A&y=2", "x=1&y=2", vec![Some("A")]),
            (
                "authorization=A&authorization=B",
                "",
                vec![Some("A"), Some("B")],
            ),
            ("Authorization=B", "", vec![Some("B")]),
            ("%61uthorization=B", "", vec![Some("B")]),
            ("%41UTHORIZATION=B", "", vec![Some("B")]),
            (
                "authorization[]=B&authorization%5B0%5D=C",
                "",
                vec![Some("B"), Some("C")],
            ),
            ("+authorization=B", "", vec![Some("B")]),
            ("authorization=a%2Bb", "", vec![Some("a+b")]),
            ("authorization=ab=cd", "", vec![Some("ab=cd")]),
        ] {
            let values: Vec<_> = values.into_iter().map(|v| v.map(str::to_owned)).collect();
            assert_eq!(split(query), (without(rest), values), "{query}");
        }
    }

    #[test]
    fn a_value_that_two_readers_read_differently_is_malformed() {
        for (query, rest) in [
            ("authorization", ""),
            ("authorization=", ""),
            ("authorization=%ff", ""),
            ("authorization=A;x=1", "x=1"),
            ("x=1;authorization=A", "x=1"),
            ("authorization=%00", ""),
        ] {
            assert_eq!(split(query), (without(rest), vec![None]), "{query}");
        }
    }

    #[test]
    fn a_query_without_the_parameter_is_left_as_it_is() {
        for query in [
            "",
            "x=1",
            "xauthorization=A",
            "authorizations=A",
            "x=authorization",
            "a;b",
            "%",
        ] {
            assert_eq!(split(query), (ForwardedQuery::Unchanged, vec![]), "{query}");
        }
    }

    #[test]
    fn a_secret_never_stays_in_the_forwarded_query() {
        let mut presented = Presented::nothing();
        let ForwardedQuery::Without(Some(rest)) = split_credentials(
            "a=1&Authorization=s3cret&b=2;authorization=s3cret",
            None,
            &mut presented,
        ) else {
            panic!("the credential was not found");
        };
        assert!(!rest.contains("s3cret"));
        assert_eq!(
            presented.claims()[0].value,
            Value::Secret(Secret::new("s3cret"))
        );
    }

    #[test]
    fn a_token_by_itself_is_found_under_its_own_name_alone() {
        for (query, rest, expected) in [
            ("access_token=a.b-c", "", Value::Token(Secret::new("a.b-c"))),
            (
                "x=1&Access%5Ftoken=a.b&y=2",
                "x=1&y=2",
                Value::Token(Secret::new("a.b")),
            ),
            ("access_token=a%20b", "", Value::Malformed),
            ("access_token=", "", Value::Malformed),
            ("access_token", "", Value::Malformed),
            ("access_token=a;x=1", "x=1", Value::Malformed),
        ] {
            let mut presented = Presented::nothing();
            let forwarded = split_credentials(query, Some("access_token"), &mut presented);
            assert_eq!(forwarded, without(rest), "{query}");
            assert_eq!(presented.claims().len(), 1, "{query}");
            assert_eq!(presented.claims()[0].value, expected, "{query}");
            assert_eq!(split(query), (ForwardedQuery::Unchanged, vec![]), "{query}");
        }
    }
}
