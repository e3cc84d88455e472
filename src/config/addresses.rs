//! That everything that listens has an address to itself.

use std::net::{IpAddr, SocketAddr};

use super::ListenerSettings;
use super::document::Section;
use crate::admin::Settings as AdminSettings;

/// The second to listen where another does would not start.
pub(super) fn refuse_shared_addresses(
    root: &Section<'_, '_>,
    listeners: &[ListenerSettings],
    admin: Option<&AdminSettings>,
) {
    let all = root.section("listeners");
    let listeners = listeners
        .iter()
        .map(|listener| (all.section(&listener.name), listener.address));
    let admin = admin.map(|admin| (root.section("admin"), admin.address));
    let holders: Vec<_> = listeners.chain(admin).collect();
    for (at, (section, address)) in holders.iter().enumerate() {
        let mut others = holders[..at].iter();
        if let Some((other, taken)) = others.find(|(_, other)| overlap(*address, *other)) {
            let message = format!("{address} is taken by {}, {taken}", other.key("address"));
            section.problem("address", message);
        }
    }
}

/// Port 0 is another one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && one.port() != 0
        && (ip == other_ip || holds(ip, other_ip) || holds(other_ip, ip))
}

/// Whether who listens at `wide` is reached at `narrow`: all of IPv6 means IPv4 as well.
fn holds(wide: IpAddr, narrow: IpAddr) -> bool {
    wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_overlaps_with_itself_and_with_all_addresses_of_its_port() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }
}
