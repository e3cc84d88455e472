//! `client_limit` and `address_limit` of routes and of MQTT listeners.

use super::check::SECOND;
use super::document::Section;
use super::value::{count, duration};
use crate::quota::{Allowance, Pace, Settings};

pub(super) fn quotas(parent: &Section<'_, '_>) -> Settings {
    Settings {
        client: allowance(parent, "client_limit"),
        address: allowance(parent, "address_limit"),
    }
}

/// Zero is no limit.
fn allowance(parent: &Section<'_, '_>, name: &str) -> Option<Allowance> {
    const MOST: u32 = 1_000_000;
    let section = parent.section(name);
    let number = |name| {
        let number = section.read(name, 0, count(0..=MOST));
        u32::try_from(number).unwrap_or(MOST)
    };
    let requests = number("requests");
    let interval = section.read("interval", SECOND, duration);
    let burst = number("burst");
    let at_once = section.read("at_once", 0, count(0..=MOST));
    for key in ["interval", "burst"] {
        if section.has(key) && requests == 0 {
            section.problem(key, "has no meaning without requests");
        }
    }
    section.finish();
    let burst = if burst == 0 { requests } else { burst };
    let allowance = Allowance {
        pace: (requests > 0).then(|| Pace::new(requests, interval, burst)),
        at_once: (at_once > 0).then_some(at_once),
    };
    (allowance.pace.is_some() || allowance.at_once.is_some()).then_some(allowance)
}
