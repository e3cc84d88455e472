//! Texts with parts of a request in braces: `"https://{host}{path}{query}"`.
//!
//! What comes of one is made of the characters of a URI (RFC 3986 §2), whatever the request says: a
//! line break, a blank or a quote leaves it percent-encoded.

use thiserror::Error;

use super::path_match::PathMatch;

/// A text with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    Host,
    Path,
    Query,
    /// Of the route's path.
    Named(String),
}

/// What a template is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The paths that its route is for.
    pub matched: &'a PathMatch,
    /// The host that the request is for, without its port.
    pub host: &'a str,
    /// Its path, normalised.
    pub path: &'a str,
    /// Its query, without credentials.
    pub query: Option<&'a str>,
}

/// Whether a template may have the query in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryUse {
    Allowed,
    Elsewhere,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
    /// A variable that does not exist.
    #[error("there is no {{{name}}}; there are {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// Those that do.
        known: String,
    },
    /// What no URI has.
    #[error("holds a character that no URI has")]
    Character,
}

impl Template {
    /// Reads a template with the variables of `matched`, the host, the path, and where it is `allowed`
    /// the query.
    pub(super) fn parse(
        text: &str,
        matched: &PathMatch,
        query: QueryUse,
    ) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(open);
            let inner = from_brace.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let (name, after) = inner.split_once('}').ok_or(TemplateError::Brace)?;
            parts.push(Part::Text(plain(before)?));
            parts.push(Part::Variable(variable(name, matched, query)?));
            rest = after;
        }
        parts.push(Part::Text(plain(rest)?));
        Ok(Self(parts))
    }

    pub(super) fn fill(&self, target: &Target<'_>) -> String {
        let mut filled = String::with_capacity(64);
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Variable(Variable::Named(name)) => {
                    let value = target.matched.value(name, target.path);
                    push_encoded(&mut filled, value.unwrap_or_default());
                }
                Part::Variable(Variable::Host) => push_encoded(&mut filled, target.host),
                Part::Variable(Variable::Path) => push_encoded(&mut filled, target.path),
                Part::Variable(Variable::Query) => {
                    if let Some(query) = target.query {
                        filled.push('?');
                        push_encoded(&mut filled, query);
                    }
                }
            }
        }
        filled
    }
}

fn plain(text: &str) -> Result<String, TemplateError> {
    let is_plain = text.bytes().all(|byte| is_plain(byte) || byte == b'#');
    is_plain
        .then(|| text.to_owned())
        .ok_or(TemplateError::Character)
}

fn variable(name: &str, matched: &PathMatch, query: QueryUse) -> Result<Variable, TemplateError> {
    match (name, query) {
        ("host", _) => return Ok(Variable::Host),
        ("path", _) => return Ok(Variable::Path),
        ("query", QueryUse::Allowed) => return Ok(Variable::Query),
        _ => {}
    }
    let mut known = matched.variables();
    if known.contains(&name) {
        return Ok(Variable::Named(name.to_owned()));
    }
    known.extend(["host", "path"]);
    if query == QueryUse::Allowed {
        known.push("query");
    }
    let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
    Err(TemplateError::Unknown {
        name: name.to_owned(),
        known: known.join(", "),
    })
}

/// Appends `text` with everything encoded that no URI has; what is encoded already stays so.
pub(super) fn push_encoded(filled: &mut String, text: &str) {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if is_plain(*byte) && (*byte != b'%' || is_escape(&bytes[at..])) {
            filled.push(char::from(*byte));
        } else {
            filled.push_str(percent_encoding::percent_encode_byte(*byte));
        }
    }
}

/// The characters of a URI but `#`, which ends the query (RFC 3986 §2.2, §2.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte)
}

fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, path: &str, query: Option<&str>) -> String {
        let matched = PathMatch::Prefix("/".into());
        let target = Target {
            matched: &matched,
            host: "a.example",
            path,
            query,
        };
        let template = Template::parse(template, &matched, QueryUse::Allowed);
        template.unwrap().fill(&target)
    }

    #[test]
    fn a_request_stands_where_its_variables_do() {
        for (template, query, expected) in [
            (
                "https://{host}{path}{query}",
                Some("a=b"),
                "https://a.example/x/y?a=b",
            ),
            ("https://{host}{path}{query}", None, "https://a.example/x/y"),
            (
                "https://{host}:8443{path}",
                None,
                "https://a.example:8443/x/y",
            ),
            ("/new{path}#part", Some("a"), "/new/x/y#part"),
            ("/{query}", Some(""), "/?"),
            ("/there", Some("a=b"), "/there"),
            ("/at/{rest}", None, "/at/x/y"),
        ] {
            assert_eq!(filled(template, "/x/y", query), expected, "{template}");
        }
    }

    #[test]
    fn nothing_leaves_it_that_no_uri_has() {
        for (query, expected) in [
            ("a=\r\nset-cookie:x", "/?a=%0D%0Aset-cookie:x"),
            ("a=\u{e9}", "/?a=%C3%A9"),
            ("a=\"{b}\"|^`\\", "/?a=%22%7Bb%7D%22%7C%5E%60%5C"),
            ("a=%41%", "/?a=%41%25"),
            ("a=%4", "/?a=%254"),
            ("a#b c", "/?a%23b%20c"),
        ] {
            assert_eq!(filled("/{query}", "/", Some(query)), expected, "{query}");
        }
        assert_eq!(filled("{path}", "/\u{e9} \"", None), "/%C3%A9%20%22");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let unknown = |name: &str| TemplateError::Unknown {
            name: name.to_owned(),
            known: "{host}, {path}, {query}".to_owned(),
        };
        let exact = PathMatch::Exact("/".into());
        for (text, error) in [
            ("/{", TemplateError::Brace),
            ("/}", TemplateError::Brace),
            ("/{path", TemplateError::Brace),
            ("/{paths}", unknown("paths")),
            ("/{rest}", unknown("rest")),
            ("/{}", unknown("")),
            ("/{{path}}", unknown("{path")),
            ("/a b", TemplateError::Character),
            ("/a\r\nb", TemplateError::Character),
            ("/\u{e9}", TemplateError::Character),
        ] {
            let template = Template::parse(text, &exact, QueryUse::Allowed);
            assert_eq!(template, Err(error), "{text}");
        }
    }
}
