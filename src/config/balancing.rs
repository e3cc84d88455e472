//! The keys of `[upstreams]` that say which server gets a request.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;

use super::document::Section;
use super::value::{Raw, duration, each, integer};
use crate::upstream::{Balance, EjectionSettings, RetrySettings, ServerSettings};

pub(super) const BALANCES: &[(&str, Balance)] = &[
    ("round_robin", Balance::RoundRobin),
    ("least_busy", Balance::LeastBusy),
    ("device", Balance::Device),
];

/// `host:port` with a name or an address, and a weight where one is given.
pub(super) fn servers(raw: Raw) -> Result<Vec<ServerSettings>, String> {
    let servers: Vec<ServerSettings> = each(raw, server)?;
    let repeated = servers.iter().enumerate().find(|(place, server)| {
        let before = servers.iter().take(*place);
        before.into_iter().any(|other| other.name == server.name)
    });
    match repeated {
        Some((_, server)) => Err(format!("\"{}\" is named twice", server.name)),
        None if servers.is_empty() => Err("must name at least one server".into()),
        None => Ok(servers),
    }
}

fn server(text: &str) -> Result<ServerSettings, String> {
    let (name, weight) = match text.split_once(' ') {
        None => (text, 1),
        Some((name, rest)) => {
            let number = rest.trim().strip_prefix("weight=");
            let weight = number.and_then(|number| number.parse().ok());
            let weight = weight.filter(|weight| (1..=100).contains(weight));
            (name, weight.ok_or_else(|| unclear(text))?)
        }
    };
    let port = name
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse::<u16>()));
    match port {
        Some((host, Ok(1..))) if is_plain(host) || name.parse::<SocketAddr>().is_ok() => {
            let name = name.to_owned();
            Ok(ServerSettings { name, weight })
        }
        _ => Err(unclear(text)),
    }
}

/// Whether it is no address of IPv6, which stands in brackets: its last part would be taken for the port.
fn is_plain(host: &str) -> bool {
    !host.is_empty() && !host.contains(['/', '@', ':', '[', ']'])
}

fn unclear(text: &str) -> String {
    format!("\"{text}\" is not host:port, alone or with weight=1 to weight=100 after a space")
}

/// When a server that fails is left out.
pub(super) fn ejection(section: Section<'_, '_>) -> EjectionSettings {
    let failures = section.read("failures", 5, integer(0..=1000));
    let settings = EjectionSettings {
        failures: u32::try_from(failures).ok().filter(|count| *count > 0),
        time: section.read("time", Duration::from_secs(10), duration),
        max_time: section.read("max_time", Duration::from_secs(300), duration),
    };
    if settings.time > settings.max_time {
        section.problem("max_time", "must not be less than time");
    }
    section.finish();
    settings
}

/// How much a server may have to do at once; zero is no limit.
pub(super) fn circuit(section: Section<'_, '_>) -> Option<u32> {
    let most = section.read("max_requests", 0, integer(0..=10_000_000));
    section.finish();
    u32::try_from(most).ok().filter(|most| *most > 0)
}

/// When a request is sent once more.
pub(super) fn retries(section: Section<'_, '_>) -> Option<RetrySettings> {
    let attempts = section.read("attempts", 0, integer(0..=10));
    let statuses = section.read("statuses", vec![], retried_statuses);
    if attempts == 0 && !statuses.is_empty() {
        section.problem("statuses", "needs attempts: nothing is sent once more");
    }
    section.finish();
    let attempts = u32::try_from(attempts).ok().filter(|count| *count > 0);
    attempts.map(|attempts| RetrySettings { attempts, statuses })
}

/// Any other status is about the request, and would be the same the next time.
fn retried_statuses(raw: Raw) -> Result<Vec<StatusCode>, String> {
    let status = |text: &str| match text {
        "502" => Ok(StatusCode::BAD_GATEWAY),
        "503" => Ok(StatusCode::SERVICE_UNAVAILABLE),
        "504" => Ok(StatusCode::GATEWAY_TIMEOUT),
        other => Err(format!("\"{other}\" is not \"502\", \"503\" or \"504\"")),
    };
    each(raw, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<(String, u32)>, String> {
        let raw = Raw::List(texts.iter().map(ToString::to_string).collect());
        let plain = |server: ServerSettings| (server.name, server.weight);
        Ok(servers(raw)?.into_iter().map(plain).collect())
    }

    #[test]
    fn servers_have_a_weight_of_one_or_the_one_given() {
        let servers = read(&[
            "a:1",
            "[::1]:2 weight=100",
            "10.0.0.1:3  weight=7",
            "[fe80::1%2]:4",
        ])
        .unwrap();
        let expected = [
            ("a:1", 1),
            ("[::1]:2", 100),
            ("10.0.0.1:3", 7),
            ("[fe80::1%2]:4", 1),
        ];
        assert_eq!(servers, expected.map(|(name, n)| (name.to_owned(), n)));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for wrong in [
            "a",
            ":1",
            "a:0",
            "a:65536",
            "a/b:1",
            "u@a:1",
            "::1:80",
            "2001:db8::1",
            "[2001:db8::1]",
            "[a]:1",
            "[::1:1",
            "a:1 weight=0",
            "a:1 weight=101",
            "a:1 weight",
            "a:1 3",
            "a:1,b:1 weight=x",
            "",
        ] {
            assert!(read(&[wrong]).unwrap_err().contains("host:port"), "{wrong}");
        }
        assert!(
            read(&["a:1", "a:1 weight=2"])
                .unwrap_err()
                .contains("twice")
        );
        assert!(read(&[]).is_err());
    }
}
