//! The one form of a path that routing, policy and upstream all see (RFC 3986 §6.2.2).
//!
//! What two parsers could read differently is refused: an encoded slash, backslash or NUL, a
//! broken escape, a step above the root.

use std::borrow::Cow;

use thiserror::Error;

/// Why a path has no single meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    Relative,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("the path holds a broken percent-encoding")]
    BrokenEscape,
    /// `%2F`, `%5C`, `%00` or `\`: a separator to one reader and none to another.
    #[error("the path holds an encoded slash, a backslash or a NUL")]
    Ambiguous,
    /// More `..` than segments.
    #[error("the path leads above the root")]
    AboveRoot,
}

/// Normalises `path`: unreserved characters decoded, escapes in upper case, `.` and `..` resolved,
/// runs of slashes made one. A path that is normal already is borrowed.
///
/// # Errors
/// [`PathError`] for a path that has no single meaning.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    resolve_dots(&decode_unreserved(path)?).map(Cow::Owned)
}

/// Whether nothing in the path asks for work: by far the commonest case.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let slash_and_more = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    memchr::memchr2(b'%', b'\\', bytes).is_none() && !bytes.windows(2).any(slash_and_more)
}

fn decode_unreserved(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        if escape.starts_with('\\') {
            return Err(PathError::Ambiguous);
        }
        let hex = escape.get(1..3).ok_or(PathError::BrokenEscape)?;
        push_escape(&mut out, hex)?;
        rest = &escape[3..];
    }
    out.push_str(rest);
    Ok(out)
}

fn push_escape(out: &mut String, hex: &str) -> Result<(), PathError> {
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PathError::BrokenEscape);
    }
    let byte = u8::from_str_radix(hex, 16).map_err(|_| PathError::BrokenEscape)?;
    match byte {
        b'/' | b'\\' | 0 => return Err(PathError::Ambiguous),
        b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
        _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
        _ => {
            out.push('%');
            out.push_str(&hex.to_ascii_uppercase());
        }
    }
    Ok(())
}

/// RFC 3986 §5.2.4, with empty segments dropped.
fn resolve_dots(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop().ok_or(PathError::AboveRoot)?),
            other => kept.push(other),
        }
    }
    let is_directory = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if is_directory || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_has_one_form() {
        for (path, normal) in [
            ("/", "/"),
            ("/http/m", "/http/m"),
            ("//http//m", "/http/m"),
            ("/http/../ws/", "/ws/"),
            ("/http/%2e%2e/ws", "/ws"),
            ("/http/.%2E/ws", "/ws"),
            ("/http/./m", "/http/m"),
            ("/http/m/.", "/http/m/"),
            ("/http/m/..", "/http/"),
            ("/a/..", "/"),
            ("/%68ttp/m", "/http/m"),
            ("/a%7eb%2Db", "/a~b-b"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/...", "/a..b/..."),
            ("/HTTP/", "/HTTP/"),
            ("/a;b=c", "/a;b=c"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn a_path_without_a_single_meaning_is_refused() {
        for (path, error) in [
            ("", PathError::Relative),
            ("*", PathError::Relative),
            ("http/", PathError::Relative),
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/a%2fb", PathError::Ambiguous),
            ("/a%5Cb", PathError::Ambiguous),
            ("/a\\b", PathError::Ambiguous),
            ("/a%00", PathError::Ambiguous),
            ("/a%", PathError::BrokenEscape),
            ("/a%2", PathError::BrokenEscape),
            ("/a%zz", PathError::BrokenEscape),
            ("/a%+f", PathError::BrokenEscape),
            ("/%é", PathError::BrokenEscape),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for path in ["//a/%2e/b", "/a/b/../c//", "/%7Ea/%3b", "/x/./y/.."] {
            let once = normalise(path).unwrap();
            assert_eq!(normalise(&once).unwrap(), once, "{path}");
        }
    }
}
