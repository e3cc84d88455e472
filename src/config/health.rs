//! The keys of `[upstreams.*.health]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use super::document::Section;
use super::upstreams::host_field;
use super::value::{Raw, duration, each, integer, one_of, text};
use crate::mqtt;
use crate::upstream::{HealthSettings, Probe};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Off,
    Tcp,
    Http,
    Mqtt,
}

const CHECKS: &[(&str, Check)] = &[
    ("off", Check::Off),
    ("tcp", Check::Tcp),
    ("http", Check::Http),
    ("mqtt", Check::Mqtt),
];

/// How servers are asked whether they are well, if they are; in MQTT they are at `websocket_path` if
/// they speak it there.
pub(super) fn health(
    section: Section<'_, '_>,
    websocket_path: Option<PathAndQuery>,
) -> Option<HealthSettings> {
    let check = section.read("check", Check::Off, one_of(CHECKS));
    let path = section.read("path", PathAndQuery::from_static("/health"), path);
    let host = section.read_optional("host", host);
    let statuses = section.read("status", vec![200..=299], statuses);
    let times = |name, default| {
        let times = section.read(name, default, integer(1..=100));
        u32::try_from(times).unwrap_or(1)
    };
    let (rise, fall) = (times("rise", 2), times("fall", 3));
    let interval = section.read("interval", Duration::from_secs(10), duration);
    let timeout = section.read("timeout", Duration::from_secs(2), duration);
    section.finish();
    let probe = match check {
        Check::Off => return None,
        Check::Tcp => Probe::Connect,
        Check::Http => Probe::Http {
            path,
            host,
            statuses,
        },
        Check::Mqtt => Probe::Dialogue(mqtt::probe(websocket_path)),
    };
    Some(HealthSettings {
        probe,
        interval,
        timeout,
        rise,
        fall,
    })
}

fn path(raw: Raw) -> Result<PathAndQuery, String> {
    let path = text(raw)?;
    if !path.starts_with('/') || path.contains('#') {
        return Err(format!("\"{path}\" must begin with / and have no fragment"));
    }
    PathAndQuery::try_from(&path).map_err(|error| format!("\"{path}\": {error}"))
}

fn host(raw: Raw) -> Result<HeaderValue, String> {
    let text = text(raw)?;
    host_field(&text).ok_or_else(|| format!("must be a host, not \"{text}\""))
}

/// `204` is itself, `2xx` is all of its class.
fn statuses(raw: Raw) -> Result<Vec<RangeInclusive<u16>>, String> {
    let wrong = |text: &str| format!("\"{text}\" is not as \"204\" or \"2xx\"");
    let statuses = each(raw, |text| status(text).ok_or_else(|| wrong(text)))?;
    if statuses.is_empty() {
        return Err("must name at least one status".into());
    }
    Ok(statuses)
}

fn status(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = match text.strip_suffix("xx") {
        Some(class) => {
            let class: u16 = class.parse().ok()?;
            (class.checked_mul(100)?, class.checked_mul(100)? + 99)
        }
        None => (text.parse().ok()?, text.parse().ok()?),
    };
    (first >= 200 && last <= 599).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_or_of_a_class() {
        assert_eq!(status("204"), Some(204..=204));
        assert_eq!(status("3xx"), Some(300..=399));
        for wrong in [
            "", "xx", "1xx", "6xx", "100", "600", "20x", "2XX", "-1", "700xx",
        ] {
            assert_eq!(status(wrong), None, "{wrong}");
        }
    }
}
