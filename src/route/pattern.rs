//! Paths with variables: `/t/{tenant}/files/{rest...}`.

use thiserror::Error;

use super::path::{PathError, normalise};

/// A path in which a whole segment may be a variable, and the last one stand for any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// The variable for whatever comes after them, if anything may.
    rest: Option<String>,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// This.
    Text(String),
    /// Anything but nothing; its name.
    Variable(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Braces that do not hold a whole segment.
    #[error("a variable is a whole segment, as in /a/{{name}}/b, or the end, as in /a/{{name...}}")]
    Brace,
    /// A name that is none, or that means something else.
    #[error("a variable cannot be called \"{0}\"")]
    Name(String),
    /// The same name twice.
    #[error("two variables are called \"{0}\"")]
    Twice(String),
    /// No path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It would never match.
    #[error("must be in its normal form")]
    Form,
}

impl Pattern {
    /// Reads a pattern. Its text, in which variables stand for something, must be in normal form.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let path = text.strip_prefix('/').ok_or(PathError::Relative)?;
        let mut segments: Vec<Segment> = path.split('/').map(segment).collect::<Result<_, _>>()?;
        let rest = segments.pop_if(|last| last.name().is_some_and(|name| name.ends_with(REST)));
        let rest = rest.and_then(|last| Some(last.name()?.strip_suffix(REST)?.to_owned()));
        let pattern = Self { segments, rest };
        pattern.check_names()?;
        let sample = pattern.sample();
        match normalise(&sample)? == sample {
            true => Ok(pattern),
            false => Err(PatternError::Form),
        }
    }

    /// The names of its variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.segments.iter().filter_map(Segment::name);
        names.chain(self.rest.as_deref())
    }

    fn check_names(&self) -> Result<(), PatternError> {
        let names: Vec<&str> = self.names().collect();
        for (at, name) in names.iter().enumerate() {
            let is_name =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if name.is_empty() || !name.bytes().all(is_name) || RESERVED.contains(name) {
                return Err(PatternError::Name((*name).to_owned()));
            }
            if names[..at].contains(name) {
                return Err(PatternError::Twice((*name).to_owned()));
            }
        }
        Ok(())
    }

    /// A path that it matches.
    fn sample(&self) -> String {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Text(text) => text,
            Segment::Variable(_) => "x",
        });
        let all: Vec<&str> = segments.chain(self.rest.as_ref().map(|_| "x")).collect();
        format!("/{}", all.join("/"))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/').skip(1);
        let all = self.segments.iter().all(|segment| match segment {
            Segment::Text(text) => parts.next() == Some(text),
            Segment::Variable(_) => parts.next().is_some_and(|part| !part.is_empty()),
        });
        // What is left may be nothing behind a slash, as below a prefix.
        all && parts.next().is_some() == self.rest.is_some()
    }

    /// What the variable `name` is in `path`, which it matches.
    pub(super) fn value<'a>(&self, name: &str, path: &'a str) -> Option<&'a str> {
        let mut left = path.strip_prefix('/')?;
        for segment in &self.segments {
            let (part, after) = left.split_once('/').unwrap_or((left, ""));
            if segment.name() == Some(name) {
                return Some(part);
            }
            left = after;
        }
        (self.rest.as_deref() == Some(name)).then_some(left)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn is_open(&self) -> bool {
        self.rest.is_some()
    }
}

/// What templates call the parts of every request.
const RESERVED: [&str; 3] = ["host", "path", "query"];

/// How the name of the last variable ends if it stands for more than a segment.
const REST: &str = "...";

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Text(_) => None,
            Self::Variable(name) => Some(name),
        }
    }
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    let inner = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    if inner.unwrap_or(text).contains(['{', '}']) {
        return Err(PatternError::Brace);
    }
    Ok(match inner {
        Some(name) => Segment::Variable(name.to_owned()),
        None => Segment::Text(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_segment_by_segment() {
        for (pattern, path, expected) in [
            ("/m/{domain}/c/{channel}", "/m/d/c/ch", true),
            ("/m/{domain}/c/{channel}", "/m/%20/c/a.b", true),
            ("/m/{domain}/c/{channel}", "/m/d/c", false),
            ("/m/{domain}/c/{channel}", "/m/d/c/", false),
            ("/m/{domain}/c/{channel}", "/m/d/c/ch/", false),
            ("/m/{domain}/c/{channel}", "/m/d/c/ch/x", false),
            ("/m/{domain}/c/{channel}", "/m/d/x/ch", false),
            ("/m/{domain}/c/{channel}", "/M/d/c/ch", false),
            ("/m/{domain}/", "/m/d/", true),
            ("/m/{domain}/", "/m/d", false),
            ("/f/{rest...}", "/f/a/b", true),
            ("/f/{rest...}", "/f/a/", true),
            ("/f/{rest...}", "/f/", true),
            ("/f/{rest...}", "/f", false),
            ("/f/{rest...}", "/fx/a", false),
            ("/{a}/{rest...}", "/x/", true),
            ("/{a}/{rest...}", "/x", false),
            ("/{rest...}", "/", true),
            ("/{a}", "/", false),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(path), expected, "{pattern:?} {path}");
        }
    }

    #[test]
    fn a_variable_is_what_stands_in_its_place() {
        let pattern = Pattern::parse("/t/{tenant}/x/{thing}/{rest...}").unwrap();
        for (name, expected) in [
            ("tenant", Some("a")),
            ("thing", Some("b%20c")),
            ("rest", Some("d/e/")),
            ("other", None),
        ] {
            let value = pattern.value(name, "/t/a/x/b%20c/d/e/");
            assert_eq!(value, expected, "{name}");
        }
        assert_eq!(pattern.value("rest", "/t/a/x/b/"), Some(""));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let name = |name: &str| PatternError::Name(name.to_owned());
        for (text, error) in [
            ("a/{b}", PatternError::Path(PathError::Relative)),
            ("/a{b}", PatternError::Brace),
            ("/{a}{b}", PatternError::Brace),
            ("/{a", PatternError::Brace),
            ("/a}", PatternError::Brace),
            ("/{a/b}", PatternError::Brace),
            ("/{}", name("")),
            ("/{...}", name("")),
            ("/{A}", name("A")),
            ("/{path}", name("path")),
            ("/{a b}", name("a b")),
            ("/{a...}/b", name("a...")),
            ("/{a}/{a}", PatternError::Twice("a".to_owned())),
            ("/{a}/{a...}", PatternError::Twice("a".to_owned())),
            ("/{a}/../b", PatternError::Form),
            ("/{a}//b", PatternError::Form),
            ("/%7e/{a}", PatternError::Form),
            ("/%2f/{a}", PatternError::Path(PathError::Ambiguous)),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
    }
}
