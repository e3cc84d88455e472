//! Names of servers become addresses, again and again: containers move.
//!
//! The system's resolver is asked, beside all requests, and says nothing of how long an answer
//! holds; so the interval is the operator's.

use std::net::SocketAddr;

use super::group::Group;

impl Group {
    /// Keeps the addresses of `name` up to date, for as long as the group is in force.
    pub(super) async fn keep_resolving(&self, name: &str) {
        let mut known = true;
        loop {
            match tokio::net::lookup_host(name).await {
                Ok(addresses) => {
                    known = true;
                    self.resolved(name, &in_order(addresses));
                }
                // Said once; whatever was known before stays.
                Err(error) if known => {
                    known = false;
                    tracing::warn!(upstream = self.name(), name, %error, "a name does not resolve");
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.settings.resolve_interval).await;
        }
    }
}

/// Each once, in an order that does not depend on the resolver's mood.
fn in_order(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
