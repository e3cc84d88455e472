//! `[limits]` and `[timeouts]`: what one client, or all together, may take.

use std::time::Duration;

use super::check::{MINUTE, SECOND};
use super::document::Section;
use super::value::{count, duration, integer, size};
use crate::http;
use crate::listener::crowd::CrowdLimits;

/// All of them, for the rooms that keep them.
pub(super) struct Bounds {
    pub(super) requests: http::Limits,
    pub(super) crowd: CrowdLimits,
    pub(super) handshake_timeout: Duration,
}

pub(super) fn bounds(root: &Section<'_, '_>) -> Bounds {
    let limits = root.section("limits");
    let timeouts = root.section("timeouts");
    let bounds = Bounds {
        crowd: crowd(&limits),
        handshake_timeout: timeouts.read("handshake", 10 * SECOND, duration),
        requests: requests(&limits, &timeouts),
    };
    limits.finish();
    timeouts.finish();
    bounds
}

/// Zero is no limit.
fn crowd(limits: &Section<'_, '_>) -> CrowdLimits {
    let most = |name, default| {
        let most = limits.read(name, default, count(0..=10_000_000));
        (most > 0).then_some(most)
    };
    CrowdLimits {
        connections: limits.read("connections", 10_000, count(1..=10_000_000)),
        per_address: most("connections_per_address", 0),
        handshakes: most("handshakes", 2000),
    }
}

fn requests(limits: &Section<'_, '_>, timeouts: &Section<'_, '_>) -> http::Limits {
    let bytes = |name, default: u64, least: u64, most: u64| {
        let amount = limits.read(name, default, |raw| match size(raw)? {
            amount if amount > most => Err(format!("must not exceed {most}B")),
            amount if amount < least => Err(format!("must be at least {least}B")),
            amount => Ok(amount),
        });
        usize::try_from(amount).unwrap_or(usize::MAX)
    };
    http::Limits {
        header_bytes: bytes("header_bytes", 32 << 10, 1 << 10, 1 << 20),
        header_count: limits.read("header_count", 100, count(1..=1000)),
        uri_bytes: bytes("uri_bytes", 8 << 10, 1, 60 << 10),
        streams: u32::try_from(limits.read("streams", 128, count(1..=10_000))).unwrap_or(u32::MAX),
        requests: requests_per_connection(limits),
        age: timeouts.read_optional("connection_age", duration),
        header_timeout: timeouts.read("header", 10 * SECOND, duration),
        idle_timeout: timeouts.read("idle", 3 * MINUTE, duration),
        stall_timeout: timeouts.read("stall", MINUTE, duration),
    }
}

/// Zero is no limit.
fn requests_per_connection(limits: &Section<'_, '_>) -> Option<u64> {
    let most = limits.read("requests_per_connection", 0, integer(0..=1_000_000_000));
    u64::try_from(most).ok().filter(|most| *most > 0)
}
