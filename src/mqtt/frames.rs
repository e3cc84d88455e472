//! MQTT packets as the frames of a relay: what may pass from either side, what the broker has answered,
//! and what the client is told when either sends something else.

use thiserror::Error;
use tokio::sync::oneshot;

use super::codec::{
    Connack, ConnackReason, DisconnectReason, Note, PacketScanner, PacketType, ScanFault, Version,
    connack_v3, connack_v5, disconnect_v5, first_packet,
};
use super::refusal::Asked;
use crate::relay::{Breach, Cause, Framing};

/// About as many bytes of a CONNACK are looked into. Behind them a Server Keep Alive is not found, and the
/// client's own applies.
const MOST_SEEN: usize = 64 * 1024;

/// What is wrong with the packets of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Packet(#[from] ScanFault),
    #[error("the broker does not begin with a CONNACK")]
    NoConnack,
    #[error("the broker ended without a CONNACK")]
    Unanswered,
}

/// The packets of one direction, behind the CONNECT.
#[derive(Debug)]
pub(super) struct Packets {
    scanner: PacketScanner,
    asked: Asked,
    stage: Stage,
}

/// How far a broker has come with its answer. The packets of a client follow the CONNECT at once.
#[derive(Debug)]
enum Stage {
    Awaited(Box<Awaited>),
    Open,
    /// It has refused the client, and nothing may follow.
    Refused,
}

/// A CONNACK that has not come, and who waits for it.
#[derive(Debug)]
struct Awaited {
    /// The packet that is on its way.
    seen: Vec<u8>,
    /// What is left of one that was not waited for.
    skip: usize,
    /// The broker has asked for something first (MQTT 5.0 §4.12).
    has_asked: bool,
    tell: oneshot::Sender<Connack>,
}

impl Packets {
    /// Those of a client; AUTH passes if `auth` says so.
    pub(super) fn of_client(asked: Asked, max_packet: u32, auth: bool) -> Self {
        let scanner = PacketScanner::from_client(asked.version, max_packet);
        Self::new(scanner, asked, auth, Stage::Open)
    }

    /// Those of a broker, whose size is the client's affair; its CONNACK is told to who waits for it,
    /// who hears an error if it fails instead.
    pub(super) fn of_broker(asked: Asked, auth: bool, tell: oneshot::Sender<Connack>) -> Self {
        let scanner = PacketScanner::from_broker(asked.version, u32::MAX);
        let awaited = Awaited {
            seen: Vec::new(),
            skip: 0,
            has_asked: false,
            tell,
        };
        Self::new(scanner, asked, auth, Stage::Awaited(Box::new(awaited)))
    }

    fn new(scanner: PacketScanner, asked: Asked, auth: bool, stage: Stage) -> Self {
        Self {
            scanner: if auth { scanner.allow_auth() } else { scanner },
            asked,
            stage,
        }
    }

    /// Whether a broker that has neither accepted nor refused has asked for something first.
    pub(super) fn has_asked(&self) -> bool {
        matches!(&self.stage, Stage::Awaited(awaited) if awaited.has_asked)
    }

    /// What the client is told behind these packets of a broker, at the end: by CONNACK before the broker's
    /// own, since nothing may come before one (\[MQTT-3.14.0-1\], \[MQTT-3.2.0-1\]); by DISCONNECT
    /// behind it, which a server of MQTT 3 has not.
    pub(super) fn last_words(
        &self,
        before: ConnackReason,
        behind: Option<DisconnectReason>,
        server_reference: Option<&str>,
    ) -> Vec<u8> {
        let note = Note {
            server_reference,
            maximum_packet_size: self.asked.maximum_packet_size,
            ..Note::default()
        };
        match (&self.stage, self.asked.version) {
            // A CONNACK that is half said is all that there can be.
            (Stage::Awaited(_), _) if !self.scanner.at_boundary() => Vec::new(),
            (Stage::Awaited(_), Version::V5) => connack_v5(before, &note),
            (Stage::Awaited(_), Version::V31 | Version::V311) => {
                let code = before.return_code();
                code.map_or(Vec::new(), |code| connack_v3(code).to_vec())
            }
            (Stage::Open, Version::V5) => {
                behind.map_or(Vec::new(), |reason| disconnect_v5(reason, &note))
            }
            (Stage::Open, Version::V31 | Version::V311) | (Stage::Refused, _) => Vec::new(),
        }
    }

    /// Whether the first of these bytes may be a broker's first.
    fn check_first(&self, bytes: &[u8]) -> Result<(), Fault> {
        let Stage::Awaited(_) = self.stage else {
            return Ok(());
        };
        let first = bytes.first().filter(|_| self.scanner.at_boundary());
        match first.map(|first| PacketType::of(*first)) {
            None | Some(Some(PacketType::Connack | PacketType::Auth)) => Ok(()),
            Some(_) => Err(Fault::NoConnack),
        }
    }

    /// Looks for the CONNACK in what passes.
    fn look(&mut self, passing: &[u8]) {
        if let Stage::Awaited(awaited) = &mut self.stage
            && let Some(connack) = awaited.look(passing)
        {
            let stage = if connack.accepts() {
                Stage::Open
            } else {
                Stage::Refused
            };
            if let Stage::Awaited(awaited) = std::mem::replace(&mut self.stage, stage) {
                // Whoever waited may have given up.
                let _ = awaited.tell.send(connack);
            }
        }
    }
}

impl Awaited {
    fn look(&mut self, passing: &[u8]) -> Option<Connack> {
        let skipped = self.skip.min(passing.len());
        self.skip -= skipped;
        self.seen
            .extend_from_slice(passing.get(skipped..).unwrap_or_default());
        while let Some(length) = first_packet(&self.seen) {
            let known = self.seen.len();
            if known < length.min(MOST_SEEN) {
                return None;
            }
            let packet = self.seen.get(..length).unwrap_or(&self.seen);
            if let Some(connack) = Connack::read(packet) {
                return Some(connack);
            }
            self.has_asked = true;
            self.skip = length.saturating_sub(known);
            self.seen.drain(..length.min(known));
        }
        None
    }
}

impl Framing for Packets {
    type Fault = Fault;

    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Breach<Fault>> {
        self.check_first(bytes)
            .map_err(|fault| Breach { pass: 0, fault })?;
        let observed = self.scanner.advance(bytes);
        let passing = match observed {
            Ok(observed) => observed.forward,
            Err(error) => error.forward,
        };
        self.look(bytes.get(..passing).unwrap_or_default());
        match observed {
            Ok(_) => Ok(passing),
            Err(error) => Err(Breach {
                pass: passing,
                fault: error.fault.into(),
            }),
        }
    }

    fn at_boundary(&self) -> bool {
        self.scanner.at_boundary()
    }

    fn under_way(&self, bytes: &[u8]) -> usize {
        self.scanner.under_way(bytes)
    }

    fn has_ended(&self) -> bool {
        self.scanner.disconnected() && self.scanner.at_boundary()
    }

    fn check_end(&self) -> Result<(), Fault> {
        match self.stage {
            Stage::Awaited(_) => Err(Fault::Unanswered),
            Stage::Open | Stage::Refused => Ok(()),
        }
    }

    fn farewell(&mut self, cause: &Cause<Fault>) -> Vec<u8> {
        let farewell = match cause {
            Cause::Client(Fault::Packet(fault)) => self.last_words(
                fault.connack_reason(),
                Some(fault.disconnect_reason()),
                None,
            ),
            Cause::Client(Fault::NoConnack | Fault::Unanswered) | Cause::Upstream(_) => {
                self.last_words(ConnackReason::ServerUnavailable, None, None)
            }
        };
        if matches!(cause, Cause::Upstream(_)) && !self.has_asked() {
            // Who waits for a CONNACK hears at once that none comes. A client that authenticates itself
            // badly may be met by closing, which is no fault of the broker's.
            self.stage = Stage::Refused;
        }
        farewell
    }
}
