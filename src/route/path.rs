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

/// Normalises `path`: unreserved characters decoded, what may not stand in a path encoded, escapes in
/// upper case, `.` and `..` resolved, runs of slashes made one. A path that is normal already is borrowed.
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
    resolve_dots(&spelled(path)?).map(Cow::Owned)
}

/// Whether nothing in the path asks for work: by far the commonest case.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let is_step = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        STANDS[usize::from(byte)] && !is_step
    })
}

/// What stands in a path as it is (RFC 3986 §3.3).
const STANDS: [bool; 256] = {
    let mut stands = [false; 256];
    let mut byte: u8 = 0;
    while byte < 0x80 {
        let is_reserved = matches!(byte, b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@');
        stands[byte as usize] = byte == b'/' || is_reserved || is_unreserved(byte);
        byte += 1;
    }
    stands
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The path with each character in the one spelling that it has: `é` and `|`, which may not stand in it
/// as they are, would escape a route that is for them as they should be.
fn spelled(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'\\' | 0 => return Err(PathError::Ambiguous),
            b'%' => {
                let (hex, after) = after.split_at_checked(2).ok_or(PathError::BrokenEscape)?;
                push_escape(&mut out, hex)?;
                rest = after;
            }
            _ if STANDS[usize::from(*byte)] => out.push(char::from(*byte)),
            _ => push_encoded(&mut out, *byte),
        }
    }
    Ok(out)
}

fn push_escape(out: &mut String, hex: &[u8]) -> Result<(), PathError> {
    match decoded(hex).ok_or(PathError::BrokenEscape)? {
        b'/' | b'\\' | 0 => return Err(PathError::Ambiguous),
        byte if is_unreserved(byte) => out.push(char::from(byte)),
        byte => push_encoded(out, byte),
    }
    Ok(())
}

fn decoded(hex: &[u8]) -> Option<u8> {
    let mut digits = hex.iter().map(|digit| char::from(*digit).to_digit(16));
    let (high, low) = (digits.next()??, digits.next()??);
    u8::try_from(high << 4 | low).ok()
}

fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    out.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
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
            ("/é", "/%C3%A9"),
            ("/é/../%c3%a9", "/%C3%A9"),
            ("/p|q", "/p%7Cq"),
            ("/p%7cq", "/p%7Cq"),
            (
                "/^`{}\"<>[] \t\x7f",
                "/%5E%60%7B%7D%22%3C%3E%5B%5D%20%09%7F",
            ),
            ("/?#", "/%3F%23"),
            ("/:@!$&'()*+,;=-._~", "/:@!$&'()*+,;=-._~"),
            ("/%3a%40%21%3d", "/%3A%40%21%3D"),
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
            ("/a\0", PathError::Ambiguous),
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
        for path in [
            "//a/%2e/b",
            "/a/b/../c//",
            "/%7Ea/%3b",
            "/x/./y/..",
            "/é|%c3/?",
        ] {
            let once = normalise(path).unwrap();
            assert_eq!(normalise(&once).unwrap(), once, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_normal_is_borrowed_and_no_other_is() {
        for byte in 1..=u8::MAX {
            let path = format!("/a{}b", char::from(byte));
            let normal = normalise(&path);
            let is_borrowed = matches!(normal, Ok(Cow::Borrowed(_)));
            assert_eq!(is_borrowed, normal.as_deref() == Ok(&path), "{path}");
        }
    }
}
