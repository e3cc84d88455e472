//! The keys of `[admin]`.

use std::net::SocketAddr;

use super::document::Section;
use super::value::{boolean, each, parsed, text};
use crate::admin::Settings;
use crate::secret::Secret;

/// The admin listener, unless it is turned off. `changes` says whether anything can be changed
/// through it.
pub(super) fn admin(section: Section<'_, '_>, changes: bool) -> Option<Settings> {
    let enabled = section.read("enabled", true, boolean);
    let settings = Settings {
        address: section.read("address", SocketAddr::from(([127, 0, 0, 1], 9900)), parsed),
        hosts: section.read("hosts", vec![], |raw| each(raw, str::parse)),
        secret: section.read_optional("secret", |raw| match text(raw)? {
            secret if secret.len() >= 32 => Ok(Secret::new(secret)),
            _ => Err("must be at least 32 bytes long".into()),
        }),
    };
    let is_open = settings.secret.is_none() && !settings.address.ip().is_loopback();
    if enabled && changes && is_open {
        let message = "is missing: admin.address is no loopback address, so whoever reaches it could \
                       lift what revocations.list holds";
        section.problem("secret", message);
    }
    section.finish();
    enabled.then_some(settings)
}
