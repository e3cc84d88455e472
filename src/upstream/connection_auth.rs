//! NTLM and Negotiate (RFC 4559 §6), which authenticate a connection and not a request: whoever
//! comes next on it would come as the client before. Such a connection is never shared.

use std::iter;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};

/// Whether a request with these fields authenticates its connection.
pub(super) fn is_used(request: &HeaderMap) -> bool {
    names_scheme(request, &AUTHORIZATION)
}

/// Whether an answer with these fields asks for that.
pub(super) fn is_asked_for(response: &HeaderMap) -> bool {
    names_scheme(response, &WWW_AUTHENTICATE)
}

fn names_scheme(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| is_of_connection(value.as_bytes()))
}

/// One field may list several challenges (RFC 9110 §11.6.1): the schemes stand first in each.
fn is_of_connection(value: &[u8]) -> bool {
    let commas = memchr::memchr_iter(b',', value).map(|at| at + 1);
    let mut challenges = iter::once(0).chain(commas);
    challenges.any(|at| begins_with_scheme(value.get(at..).unwrap_or_default()))
}

fn begins_with_scheme(challenge: &[u8]) -> bool {
    let challenge = challenge.trim_ascii_start();
    let begins = |scheme: &[u8]| {
        challenge
            .split_at_checked(scheme.len())
            .is_some_and(|(name, rest)| {
                name.eq_ignore_ascii_case(scheme)
                    && matches!(rest.first(), None | Some(b' ' | b','))
            })
    };
    begins(b"ntlm") || begins(b"negotiate")
}

#[cfg(test)]
mod tests {
    use super::is_of_connection;

    #[test]
    fn schemes_of_connections_are_told_from_those_of_requests() {
        for value in [
            "NTLM",
            "ntlm TlRMTVNTUAAB",
            "Negotiate",
            "Basic realm=\"a\", Negotiate",
        ] {
            assert!(is_of_connection(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "Basic YTpi",
            "Bearer ntlm",
            "Client negotiate",
            "NTLMv9",
        ] {
            assert!(!is_of_connection(value.as_bytes()), "{value}");
        }
    }
}
