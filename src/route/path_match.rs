//! The paths that a route is for, and which of two routes is the more specific about them.

use super::pattern::{Pattern, Segment};

/// The paths that a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path alone.
    Exact(String),
    /// This path and everything below it. A prefix that ends in `/` does not match itself
    /// without the slash; one that does not end in `/` ends where a segment ends.
    Prefix(String),
    /// The paths of this form.
    Pattern(Pattern),
}

/// What the variable for whatever comes below a prefix is called.
const REST: &str = "rest";

/// How specific a path is about one segment of those it matches; greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Whether there is one or not.
    Open,
    /// Whatever comes behind this slash.
    Below,
    /// Any one segment.
    Variable,
    /// This segment.
    Text,
    /// There is none.
    End,
}

impl PathMatch {
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
            }),
            Self::Pattern(pattern) => pattern.matches(path),
        }
    }

    /// How specific it is, segment by segment; greater is tried first. Of two that match the same
    /// path and are equal here, both are of the same [`Self::shape`].
    pub(super) fn rank(&self) -> Vec<Extent> {
        let texts = |path: &str| vec![Extent::Text; path.matches('/').count()];
        let (mut rank, last) = match self {
            Self::Exact(path) => (texts(path), Extent::End),
            Self::Prefix(path) => match path.strip_suffix('/') {
                Some(path) => (texts(path), Extent::Below),
                None => (texts(path), Extent::Open),
            },
            Self::Pattern(pattern) => {
                let segments = pattern.segments().iter().map(|segment| match segment {
                    Segment::Text(_) => Extent::Text,
                    Segment::Variable(_) => Extent::Variable,
                });
                let is_open = pattern.is_open();
                let last = if is_open { Extent::Below } else { Extent::End };
                (segments.collect(), last)
            }
        };
        rank.push(last);
        rank
    }

    /// The same for all that match the same paths, whatever their variables are called.
    #[must_use]
    pub fn shape(&self) -> String {
        match self {
            Self::Exact(path) => path.clone(),
            Self::Prefix(path) if path.ends_with('/') => format!("{path}{{...}}"),
            Self::Prefix(path) => format!("{path}{{/...}}"),
            Self::Pattern(pattern) => {
                let segments = pattern.segments().iter().map(|segment| match segment {
                    Segment::Text(text) => text,
                    Segment::Variable(_) => "{}",
                });
                let rest = pattern.is_open().then_some("{...}");
                let all: Vec<&str> = segments.chain(rest).collect();
                format!("/{}", all.join("/"))
            }
        }
    }

    /// The names of what may differ between the paths that it matches.
    pub(super) fn variables(&self) -> Vec<&str> {
        match self {
            Self::Exact(_) => vec![],
            Self::Prefix(_) => vec![REST],
            Self::Pattern(pattern) => pattern.names().collect(),
        }
    }

    /// What the variable `name` is in `path`, which it matches. None begins with a slash.
    pub(super) fn value<'a>(&self, name: &str, path: &'a str) -> Option<&'a str> {
        match self {
            Self::Exact(_) => None,
            Self::Prefix(prefix) => {
                let rest = path.strip_prefix(prefix.as_str())?;
                (name == REST).then(|| rest.strip_prefix('/').unwrap_or(rest))
            }
            Self::Pattern(pattern) => pattern.value(name, path),
        }
    }

    /// `path`, which it matches, without the prefix, if it is one.
    pub(super) fn stripped<'a>(&self, path: &'a str) -> &'a str {
        match self {
            Self::Prefix(prefix) => {
                // What is left keeps its leading slash: the prefix's own last one, if it has it.
                let cut = prefix.trim_end_matches('/').len();
                path.get(cut..)
                    .filter(|rest| !rest.is_empty())
                    .unwrap_or("/")
            }
            Self::Exact(_) | Self::Pattern(_) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    #[test]
    fn a_stripped_prefix_leaves_an_absolute_path() {
        for (path, request, upstream) in [
            (prefix("/http/"), "/http/m/d/c/ch", "/m/d/c/ch"),
            (prefix("/http/"), "/http/", "/"),
            (prefix("/http"), "/http", "/"),
            (prefix("/http"), "/http/m", "/m"),
            (prefix("/"), "/m", "/m"),
            (PathMatch::Exact("/a".into()), "/a", "/a"),
        ] {
            assert_eq!(path.stripped(request), upstream, "{request}");
        }
    }

    fn pattern(path: &str) -> PathMatch {
        PathMatch::Pattern(Pattern::parse(path).unwrap())
    }

    #[test]
    fn the_more_specific_of_two_paths_says_more_from_the_left() {
        for (path, more, less) in [
            ("/a/b", PathMatch::Exact("/a/b".into()), pattern("/a/{x}")),
            ("/a/b", PathMatch::Exact("/a/b".into()), prefix("/a/b")),
            ("/a/", PathMatch::Exact("/a/".into()), prefix("/a/")),
            ("/a/b", pattern("/a/{x}"), pattern("/{x}/b")),
            ("/a/b", pattern("/a/{x}"), pattern("/{x}/{y}")),
            ("/a/b", pattern("/a/{x}"), prefix("/a/")),
            ("/a/b", pattern("/a/{x}"), prefix("/a")),
            ("/a/b", prefix("/a/"), pattern("/{x}/b")),
            ("/a/b", prefix("/a/"), prefix("/a")),
            ("/a/b", prefix("/a/b"), pattern("/a/{x}")),
            ("/a/b/c", prefix("/a/b"), pattern("/a/{x...}")),
            ("/a/b/c", pattern("/a/{x}/{y...}"), prefix("/a/")),
            ("/a/b/c", prefix("/a/"), pattern("/{x...}")),
        ] {
            assert!(
                more.matches(path) && less.matches(path),
                "{more:?} {less:?}"
            );
            assert!(more.rank() > less.rank(), "{more:?} {less:?}");
            assert_ne!(more.shape(), less.shape());
        }
        for (one, same) in [
            (pattern("/a/{x}"), pattern("/a/{y}")),
            (pattern("/a/{x...}"), prefix("/a/")),
            (pattern("/a/b"), PathMatch::Exact("/a/b".into())),
        ] {
            assert_eq!((one.rank(), one.shape()), (same.rank(), same.shape()));
        }
    }
}
