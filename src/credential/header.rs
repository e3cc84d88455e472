//! The forms of an `Authorization` value (RFC 9110 §11.6.2, RFC 7617, RFC 6750) that carry a client
//! secret or a bearer token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;
use zeroize::Zeroizing;

use super::Value;
use crate::secret::Secret;

/// Reads the bytes of one field value.
pub(super) fn read(value: &[u8]) -> Value {
    std::str::from_utf8(value).map_or(Value::Malformed, read_text)
}

/// Reads bytes that are the secret and nothing else.
pub(super) fn read_exact(value: &[u8]) -> Value {
    std::str::from_utf8(value).map_or(Value::Malformed, secret)
}

/// Reads text that is a bearer token and nothing else.
pub(super) fn read_token(text: &str) -> Value {
    if is_token(text) {
        Value::Token(Secret::new(text))
    } else {
        Value::Malformed
    }
}

/// Reads a value that is text already.
pub(super) fn read_text(text: &str) -> Value {
    if !is_usable(text) {
        return Value::Malformed;
    }
    let blank = memchr(b' ', text.as_bytes());
    let Some((scheme, rest)) = blank.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?)))
    else {
        return bare(text);
    };
    // RFC 9110 §11.1: scheme names know no case.
    match scheme {
        _ if scheme.eq_ignore_ascii_case("client") => secret(rest),
        // What the platform called its clients before November 2024.
        _ if scheme.eq_ignore_ascii_case("thing") => secret(rest),
        _ if scheme.eq_ignore_ascii_case("basic") => basic(rest.trim_matches(' ')),
        _ if scheme.eq_ignore_ascii_case("bearer") && is_token(rest) => read_token(rest),
        _ => Value::Opaque(Secret::new(text)),
    }
}

fn is_token(text: &str) -> bool {
    is_b64token(text) || is_api_key(text)
}

/// `pat_<id>_<rest>`. Platforms put characters into the rest that RFC 6750 has no room for.
fn is_api_key(text: &str) -> bool {
    let mut parts = text.splitn(3, '_');
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_visible = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    parts.next().is_some_and(is_word)
        && parts.next().is_some_and(is_visible)
        && parts.next().is_some_and(is_visible)
}

/// RFC 6750 §2.1, RFC 9110 §11.2 (`token68`).
fn is_b64token(text: &str) -> bool {
    let letters = text.trim_end_matches('=');
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !letters.is_empty() && letters.bytes().all(is_letter)
}

/// A secret without a scheme. A scheme without a secret may be one, if a certificate says so.
fn bare(text: &str) -> Value {
    let schemes = ["client", "thing", "basic", "bearer"];
    if schemes
        .iter()
        .any(|scheme| text.eq_ignore_ascii_case(scheme))
    {
        Value::Opaque(Secret::new(text))
    } else {
        secret(text)
    }
}

fn basic(encoded: &str) -> Value {
    pair(encoded, |_, password| secret(password)).unwrap_or(Value::Malformed)
}

/// The user-id of a field value that is `Basic` and well formed.
pub(super) fn user_name(value: &[u8]) -> Option<String> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    pair(encoded.trim_matches(' '), |user, _| user.to_owned())
}

/// Both sides of `user-id:password`; the first colon ends the user-id (RFC 7617 §2).
fn pair<T>(encoded: &str, read: impl FnOnce(&str, &str) -> T) -> Option<T> {
    let decoded = STANDARD.decode(encoded).ok().map(Zeroizing::new)?;
    let text = std::str::from_utf8(&decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(read(user, password))
}

fn secret(text: &str) -> Value {
    if is_usable(text) {
        Value::Secret(Secret::new(text))
    } else {
        Value::Malformed
    }
}

/// The rules that a certificate's common name keeps as well, so that either can equal the other.
fn is_usable(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if is_printable(bytes) {
        return *first != b' ' && *last != b' ';
    }
    !text.chars().any(char::is_control) && text.trim() == text
}

/// Whether nothing but printable ASCII stands there, as nearly always. Looks at all of it, since the machine
/// looks at many bytes at a time then.
fn is_printable(bytes: &[u8]) -> bool {
    let others = bytes
        .iter()
        .map(|byte| u8::from(byte.wrapping_sub(b' ') > b'~' - b' '))
        .fold(0, |others, other| others | other);
    others == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_secret(value: &str, expected: &str) -> bool {
        read(value.as_bytes()) == Value::Secret(Secret::new(expected))
    }

    #[test]
    fn a_secret_is_found_in_each_documented_form() {
        assert!(is_secret("Client s3cret", "s3cret"));
        assert!(is_secret("client s3cret", "s3cret"));
        assert!(is_secret("Thing s3cret", "s3cret"));
        assert!(is_secret("s3cret", "s3cret"));
        assert!(is_secret("Basic dXNlcjpzM2NyZXQ=", "s3cret"));
        assert!(is_secret("Basic OnMzY3JldA==", "s3cret"), "empty user-id");
        assert!(
            is_secret("Basic dTphOmI=", "a:b"),
            "a password may hold colons"
        );
        assert!(is_secret("Client a b", "a b"));
    }

    #[test]
    fn what_is_printable_is_told_from_what_is_not_byte_for_byte() {
        for byte in 0..=u8::MAX {
            let is_plain = byte == b' ' || byte.is_ascii_graphic();
            for length in [1, 2, 31, 32, 33, 70] {
                let mut bytes = vec![b'x'; length];
                assert!(is_printable(&bytes));
                bytes[length / 2] = byte;
                assert_eq!(is_printable(&bytes), is_plain, "{byte} {length}");
            }
        }
        for text in ["\u{a0}s", "s\u{2003}", "s\u{85}t", "s\u{7f}t"] {
            assert_eq!(read(text.as_bytes()), Value::Malformed, "{text:?}");
        }
        assert!(is_secret("Client \u{e4}\u{a0}b", "\u{e4}\u{a0}b"));
    }

    #[test]
    fn a_password_has_no_scheme() {
        let exact = |value: &str| read_exact(value.as_bytes());
        assert_eq!(exact("s3cret"), Value::Secret(Secret::new("s3cret")));
        assert_eq!(
            exact("Client s3cret"),
            Value::Secret(Secret::new("Client s3cret"))
        );
        for value in ["", " s3cret", "s3cret ", "a\0b"] {
            assert_eq!(exact(value), Value::Malformed, "{value:?}");
        }
        assert_eq!(read_exact(b"\xff"), Value::Malformed);
    }

    #[test]
    fn a_bearer_token_is_told_from_a_secret() {
        for value in ["Bearer a.b-c_d~e+f/g==", "bearer a.b-c_d~e+f/g=="] {
            let token = Secret::new("a.b-c_d~e+f/g==");
            assert_eq!(read(value.as_bytes()), Value::Token(token), "{value}");
        }
        let key = "pat_MTIz+/==_a!@#$%^&*|+-=z";
        assert_eq!(
            read(format!("Bearer {key}").as_bytes()),
            Value::Token(Secret::new(key))
        );
    }

    #[test]
    fn what_only_resembles_a_credential_is_malformed() {
        for value in [
            "",
            " ",
            "Client ",
            "Client  s",
            "Client s ",
            "Thing ",
            "Basic ",
            "Basic !!!",
            "Basic dXNlcg==",
            "Basic dXNlcjo=",
            "Basic ////",
            " s",
            "a\tb",
        ] {
            assert_eq!(read(value.as_bytes()), Value::Malformed, "{value:?}");
        }
        assert_eq!(read(b"\xff\xfe"), Value::Malformed);
    }

    #[test]
    fn another_scheme_is_never_taken_for_a_bare_secret() {
        for value in [
            "Client",
            "bearer",
            "Bearer a b",
            "Bearer =",
            "Bearer a=b",
            "Bearer pat_a!",
            "Bearer pat__a!",
            "Bearer p!t_a_b",
            "Bearer \u{e4}",
            "Digest username=x",
            "my secret",
            "Clientx s",
        ] {
            assert!(
                matches!(read(value.as_bytes()), Value::Opaque(_)),
                "{value:?}"
            );
        }
    }
}
