//! Host names as policies and routes know them: [`HostPattern`] and the host of a request.

use std::fmt;
use std::str::FromStr;

/// A DNS name, or `*.` and a parent, which stands for exactly one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    name: String,
    wildcard: bool,
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(format!("\"{text}\" is not a DNS name or *.name"));
        }
        Ok(Self { name, wildcard })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

impl HostPattern {
    /// Whether `host` (any case, with or without a final dot) is this name.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.wildcard {
            return host.eq_ignore_ascii_case(&self.name);
        }
        host.split_once('.').is_some_and(|(label, parent)| {
            !label.is_empty() && parent.eq_ignore_ascii_case(&self.name)
        })
    }

    /// Whether it is a wildcard, which an exact name goes before.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_pattern_matches_its_name_and_no_other() {
        for (pattern, host, expected) in [
            ("api.example.com", "API.Example.com", true),
            ("api.example.com", "api.example.com.", true),
            ("api.example.com", "example.com", false),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "api.example.org", false),
        ] {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(host), expected, "{pattern} and {host}");
        }
    }

    #[test]
    fn what_is_not_a_name_is_no_pattern() {
        for text in ["", "*", "*.", "a..b", "a b", "*.*.com", "a/b", "é.com"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }
}
