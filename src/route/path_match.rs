//! The paths that a route is for, and which of two routes is the more specific about them.

/// The paths that a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path alone.
    Exact(String),
    /// This path and everything below it. A prefix that ends in `/` does not match itself
    /// without the slash; one that does not end in `/` ends where a segment ends.
    Prefix(String),
}

impl PathMatch {
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
            }),
        }
    }

    /// How specific it is; greater is tried first.
    pub(super) fn rank(&self) -> (bool, usize) {
        match self {
            Self::Exact(path) => (true, path.len()),
            Self::Prefix(path) => (false, path.len()),
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
            Self::Exact(_) => path,
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
}
