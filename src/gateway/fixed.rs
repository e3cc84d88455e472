//! What is decided at the start for as long as the gateway runs, so that a reload can say what it
//! leaves as it is.

use std::net::SocketAddr;

use crate::config::Settings;
use crate::telemetry::LogSettings;

/// What no reload changes.
#[derive(Debug)]
pub(super) struct Fixed {
    workers: usize,
    log: LogSettings,
    admin: Option<SocketAddr>,
}

impl Fixed {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            workers: settings.workers,
            log: settings.log,
            admin: settings.admin.as_ref().map(|admin| admin.address),
        }
    }

    /// The keys in which `other` is not like this one.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (log, other_log) = (&self.log, &other.log);
        let is_admin_moved = self.admin.is_some() && other.admin.is_some();
        let keys = [
            ("workers", self.workers != other.workers),
            ("log.level", log.level != other_log.level),
            ("log.format", log.format != other_log.format),
            ("log.access", log.access != other_log.access),
            (
                "admin.enabled",
                self.admin.is_some() != other.admin.is_some(),
            ),
            ("admin.address", is_admin_moved && self.admin != other.admin),
        ];
        let differing = keys.into_iter().filter(|(_, differs)| *differs);
        differing.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Format, Level};

    fn at(admin: Option<&str>) -> Fixed {
        Fixed {
            workers: 1,
            log: LogSettings {
                level: Level::Info,
                format: Format::Json,
                access: true,
            },
            admin: admin.map(|address| address.parse().unwrap()),
        }
    }

    #[test]
    fn every_key_that_differs_is_named_and_no_other() {
        let (here, there) = (Some("127.0.0.1:1"), Some("127.0.0.1:2"));
        let mut busier = at(here);
        busier.workers = 2;
        busier.log.level = Level::Debug;
        let mut silent = at(here);
        silent.log.format = Format::Text;
        silent.log.access = false;
        for (other, expected) in [
            (at(here), &[][..]),
            (busier, &["workers", "log.level"]),
            (silent, &["log.format", "log.access"]),
            (at(None), &["admin.enabled"]),
            (at(there), &["admin.address"]),
        ] {
            assert_eq!(at(here).differences(&other), expected);
            assert_eq!(other.differences(&at(here)), expected);
        }
    }
}
