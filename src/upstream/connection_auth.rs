//! NTLM and Negotiate (RFC 4559 §6), which authenticate a connection and not a request: whoever
//! comes next on it would come as the client before. Such a connection is never shared.

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
    // Few requests have the field, and fewer answers.
    headers.contains_key(name)
        && headers
            .get_all(name)
            .iter()
            .any(|value| is_of_connection(value.as_bytes()))
}

/// One field may list several challenges (RFC 9110 §11.6.1): the schemes stand first in each.
fn is_of_connection(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| {
        let scheme = part.trim_ascii().split(|byte| *byte == b' ').next();
        let scheme = scheme.unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
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
