//! NTLM and Negotiate (RFC 4559 §6), which authenticate a connection and not a request: whoever
//! comes next on it would come as the client before. Such a connection is never shared.

use std::iter;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};

/// Whether a request with these fields authenticates its connection.
pub(super) fn is_used(request: &HeaderMap) -> bool {
    let mut values = request.get_all(AUTHORIZATION).iter();
    values.any(|value| begins_with_scheme(value.as_bytes()))
}

/// Whether an answer with these fields asks for that.
pub(super) fn is_asked_for(answer: &HeaderMap) -> bool {
    let mut values = answer.get_all(WWW_AUTHENTICATE).iter();
    values.any(|value| lists_scheme(value.as_bytes()))
}

/// One field may list several challenges (RFC 9110 §11.6.1): the schemes stand first in each.
fn lists_scheme(value: &[u8]) -> bool {
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
    use super::{begins_with_scheme, lists_scheme};

    #[test]
    fn schemes_of_connections_are_told_from_those_of_requests() {
        for value in ["NTLM", "ntlm TlRMTVNTUAAB", "Negotiate"] {
            assert!(begins_with_scheme(value.as_bytes()), "{value}");
            assert!(lists_scheme(value.as_bytes()), "{value}");
            let listed = format!("Basic realm=\"a\", {value}");
            assert!(lists_scheme(listed.as_bytes()), "{value}");
        }
        for value in [
            "",
            "Basic YTpi",
            "Bearer ntlm",
            "Client negotiate",
            "NTLMv9",
        ] {
            assert!(!begins_with_scheme(value.as_bytes()), "{value}");
            assert!(!lists_scheme(value.as_bytes()), "{value}");
        }
    }
}
