//! The path that an upstream sees in place of the request's.

use thiserror::Error;

use super::path::{PathError, normalise};
use super::path_match::PathMatch;
use super::template::{QueryUse, Target, Template, TemplateError};

/// A path made of a request's parts. It is normalised once more when it is made, and no part can hold
/// a separator or begin a query, so nothing of a request reaches another place than its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite(Template);

/// Why a text makes no path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RewriteError {
    /// It is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It is none, whatever the request.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is more than a path.
    #[error("must be a path in normal form, without a query, which stays the request's")]
    Form,
}

impl Rewrite {
    /// Reads the path for requests to the paths `matched`.
    ///
    /// # Errors
    /// [`RewriteError`] says what is wrong with it.
    pub fn parse(text: &str, matched: &PathMatch) -> Result<Self, RewriteError> {
        let template = Template::parse(text, matched, QueryUse::Elsewhere)?;
        // With letters for the variables: their own slashes are no matter of the template's form.
        let sample = text.replace("{path}", "/x").replace(['{', '}'], "x");
        if normalise(&sample)? != sample || sample.contains(['?', '#']) {
            return Err(RewriteError::Form);
        }
        Ok(Self(template))
    }

    /// The path for a request, in normal form.
    ///
    /// # Errors
    /// [`PathError`] if the request's parts make no path.
    pub(super) fn of(&self, target: &Target<'_>) -> Result<String, PathError> {
        let path = self.0.fill(target);
        normalise(&path).map(String::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Pattern;

    fn rewritten(rewrite: &str, matched: &PathMatch, path: &str) -> String {
        assert!(matched.matches(path), "{matched:?} {path}");
        let target = Target {
            matched,
            host: "a.example",
            path,
            query: Some("a=b"),
        };
        let rewrite = Rewrite::parse(rewrite, matched).unwrap();
        rewrite.of(&target).unwrap()
    }

    #[test]
    fn a_path_is_made_of_the_parts_of_another() {
        let prefix = PathMatch::Prefix("/api".into());
        let pattern = Pattern::parse("/t/{tenant}/{thing}/{more...}").unwrap();
        let pattern = PathMatch::Pattern(pattern);
        let exact = PathMatch::Exact("/a".into());
        for (rewrite, matched, path, expected) in [
            ("/v2/{rest}", &prefix, "/api/x/y", "/v2/x/y"),
            ("/v2/{rest}", &prefix, "/api/", "/v2/"),
            ("/v2/{rest}", &prefix, "/api", "/v2/"),
            ("/v2{path}", &prefix, "/api/x", "/v2/api/x"),
            ("/{rest}/end", &prefix, "/api", "/end"),
            (
                "/{host}/{rest}",
                &prefix,
                "/api/x%20%3F",
                "/a.example/x%20%3F",
            ),
            ("/{thing}/of/{tenant}", &pattern, "/t/a/b/c", "/b/of/a"),
            (
                "/{thing}-{tenant}.{more}",
                &pattern,
                "/t/a/b/c/d",
                "/b-a.c/d",
            ),
            ("/b", &exact, "/a", "/b"),
        ] {
            assert_eq!(
                rewritten(rewrite, matched, path),
                expected,
                "{rewrite} {path}"
            );
        }
    }

    #[test]
    fn nothing_of_a_request_leaves_its_place() {
        let pattern = Pattern::parse("/{a}/{b...}").unwrap();
        let pattern = PathMatch::Pattern(pattern);
        for (path, expected) in [
            ("/.../x", "/in/.../x/x.../end"),
            ("/.a/.b", "/in/.a/.b/x.a/end"),
            ("/%3Fa=b/x%23y", "/in/%3Fa=b/x%23y/x%3Fa=b/end"),
            ("/%252e%252e/x", "/in/%252e%252e/x/x%252e%252e/end"),
            ("/a\"{b}/x|y", "/in/a%22%7Bb%7D/x%7Cy/xa%22%7Bb%7D/end"),
        ] {
            let rewritten = rewritten("/in/{a}/{b}/x{a}/end", &pattern, path);
            assert_eq!(rewritten, expected, "{path}");
        }
    }

    #[test]
    fn what_makes_no_path_is_refused() {
        let prefix = PathMatch::Prefix("/api/".into());
        for text in [
            "",
            "v2",
            "{rest}",
            "v2{path}",
            "/v2/../{rest}",
            "/v2//{rest}",
            "/v2/{rest}?a=b",
            "/v2{query}",
            "/v2/{rest}#x",
            "/{tenant}",
            "/a%2f{rest}",
            "/%7e",
            "/a b",
            "/{rest",
        ] {
            assert!(Rewrite::parse(text, &prefix).is_err(), "{text}");
        }
    }
}
