//! MQTT packets as the frames of a relay: what may pass from either side, and what the client is
//! told when it sends something else.

use super::codec::{Note, PacketScanner, ScanFault, Version, disconnect_v5};
use crate::relay::{Breach, Framing};

/// The packets of one direction, behind the CONNECT.
#[derive(Debug)]
pub(super) struct Packets {
    scanner: PacketScanner,
    version: Version,
}

impl Packets {
    /// Those of a client; AUTH passes if `auth` says so.
    pub(super) fn of_client(version: Version, max_packet: u32, auth: bool) -> Self {
        let scanner = PacketScanner::from_client(version, max_packet);
        Self {
            scanner: if auth { scanner.allow_auth() } else { scanner },
            version,
        }
    }

    /// Those of a broker, whose size is the client's affair.
    pub(super) fn of_broker(version: Version, auth: bool) -> Self {
        let scanner = PacketScanner::from_broker(version, u32::MAX);
        Self {
            scanner: if auth { scanner.allow_auth() } else { scanner },
            version,
        }
    }
}

impl Framing for Packets {
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Breach> {
        let observed = self.scanner.advance(bytes).map_err(|error| Breach {
            pass: error.forward,
            farewell: match self.version {
                Version::V5 => disconnect_v5(error.fault.disconnect_reason(), &Note::default()),
                // A server of MQTT 3 has no DISCONNECT: it closes.
                Version::V31 | Version::V311 => Vec::new(),
            },
            too_large: matches!(error.fault, ScanFault::TooLarge { .. }),
            reason: error.fault.to_string(),
        })?;
        Ok(observed.forward)
    }

    fn at_boundary(&self) -> bool {
        self.scanner.at_boundary()
    }

    fn has_ended(&self) -> bool {
        self.scanner.disconnected() && self.scanner.at_boundary()
    }
}
