//! What a route asks of a user's token beside that it is good, and what it tells upstream of it.

use hyper::header::HeaderName;
use serde_json::{Map, Value};

/// Where a claim stands among the claims, however deep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

/// A condition on one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// The claim.
    pub path: ClaimPath,
    /// What it must be.
    pub test: ClaimTest,
}

/// What a claim must be. Numbers and truth values are compared as JSON writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimTest {
    /// There, and not null.
    Exists,
    /// One of these, exactly.
    OneOf(Vec<String>),
    /// A list with this in it, or a text with this among its words, as scopes are (RFC 6749 §3.3).
    Contains(String),
}

/// A claim that upstream is told in a field of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedClaim {
    /// The field.
    pub field: HeaderName,
    /// The claim.
    pub path: ClaimPath,
}

impl ClaimPath {
    /// Reads names between dots, or, with a slash in front, a JSON Pointer (RFC 6901), which can name
    /// claims that have dots in their names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        };
        (!names.iter().any(String::is_empty)).then_some(Self(names))
    }

    /// The claim's value; one that is null is not there.
    #[must_use]
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, deeper) = self.0.split_first()?;
        let mut value = claims.get(first)?;
        for name in deeper {
            value = value.as_object()?.get(name)?;
        }
        (!value.is_null()).then_some(value)
    }
}

fn unescape(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

impl ClaimRule {
    /// Whether `claims` keep it.
    #[must_use]
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        let Some(value) = self.path.find(claims) else {
            return false;
        };
        match &self.test {
            ClaimTest::Exists => true,
            ClaimTest::OneOf(wanted) => wanted.iter().any(|wanted| is(value, wanted)),
            ClaimTest::Contains(wanted) => match value {
                Value::Array(items) => items.iter().any(|item| is(item, wanted)),
                Value::String(words) => words.split(' ').any(|word| word == wanted),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
            },
        }
    }
}

fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Bool(value) => wanted == if *value { "true" } else { "false" },
        Value::Number(number) => number.to_string().as_str() == wanted,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Map<String, Value> {
        let claims = json!({
            "role": "admin", "level": 7, "verified": true, "nothing": null,
            "scope": "read write", "realm_access": {"roles": ["admin", 7, ["deep"]]},
            "https://example.com/tenant": "t1", "a/b": {"c~d": 1},
        });
        claims.as_object().unwrap().clone()
    }

    fn holds(path: &str, test: ClaimTest) -> bool {
        let path = ClaimPath::parse(path).unwrap();
        ClaimRule { path, test }.holds(&claims())
    }

    fn one_of(wanted: &[&str]) -> ClaimTest {
        ClaimTest::OneOf(wanted.iter().map(|wanted| (*wanted).to_owned()).collect())
    }

    #[test]
    fn claims_are_found_at_any_depth() {
        for path in [
            "role",
            "verified",
            "realm_access.roles",
            "/realm_access/roles",
            "/https:~1~1example.com~1tenant",
            "/a~1b/c~0d",
        ] {
            assert!(holds(path, ClaimTest::Exists), "{path}");
        }
        for path in [
            "nothing",
            "none",
            "role.x",
            "realm_access.none",
            "realm_access.roles.0",
            "Role",
        ] {
            assert!(!holds(path, ClaimTest::Exists), "{path}");
        }
        for path in ["", ".", "a..b", "/", "a.", ".a", "//"] {
            assert_eq!(ClaimPath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn claims_are_compared_exactly() {
        assert!(holds("role", one_of(&["user", "admin"])));
        assert!(holds("level", one_of(&["7"])));
        assert!(holds("verified", one_of(&["true"])));
        for (path, wanted) in [
            ("role", "admi"),
            ("role", "Admin"),
            ("role", "admin "),
            ("level", "7.0"),
            ("verified", "false"),
            ("nothing", "null"),
            ("realm_access.roles", "admin"),
            ("realm_access", "roles"),
            ("none", ""),
        ] {
            assert!(!holds(path, one_of(&[wanted])), "{path} {wanted}");
        }
    }

    #[test]
    fn lists_and_scopes_contain_whole_words() {
        let contains = |path, wanted: &str| holds(path, ClaimTest::Contains(wanted.to_owned()));
        assert!(contains("realm_access.roles", "admin"));
        assert!(contains("realm_access.roles", "7"));
        assert!(contains("scope", "write"));
        for (path, wanted) in [
            ("realm_access.roles", "adm"),
            ("realm_access.roles", "deep"),
            ("scope", "writ"),
            ("scope", "read write"),
            ("level", "7"),
            ("realm_access", "roles"),
            ("none", "x"),
        ] {
            assert!(!contains(path, wanted), "{path} {wanted}");
        }
    }
}
