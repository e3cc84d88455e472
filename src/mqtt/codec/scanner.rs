//! Follows the packets of a relayed connection without holding them: MQTT 5.0 §2.1, §4.13.
//!
//! A [`PacketScanner`] looks at fixed headers only and steps over all else by arithmetic, so it
//! costs per packet and not per byte. It refuses what a relay must not carry (a second CONNECT, a
//! packet from the wrong side, one that is too large) and knows where a packet ends, the one place
//! where a DISCONNECT of our own may stand. It looks into no payload.

use thiserror::Error;

use super::answer::{ConnackReason, DisconnectReason};
use super::connect::Version;
use super::packet::{Extent, PacketType};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Broker,
}

/// Watches one direction of a connection, from the packet behind the CONNECT on.
#[derive(Debug, Clone)]
pub struct PacketScanner {
    sender: Sender,
    version: Version,
    max_packet: u32,
    auth: bool,
    disconnected: bool,
    /// How much of the current packet is still to come, in bytes.
    left: u32,
}

/// What a call to [`PacketScanner::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// How many of the given bytes may be passed on. The others, four at most, are the front of a
    /// fixed header: keep them and give them again with more behind.
    pub forward: usize,
    /// Whether the bytes passed on so far end with a packet, so that another may be put in.
    pub at_boundary: bool,
}

/// The fixed header of a packet that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketStart {
    /// Its type.
    pub kind: PacketType,
    /// The low four bits of the first byte, §2.1.3.
    pub flags: u8,
    /// How many bytes follow the fixed header, §2.1.4.
    pub remaining: u32,
}

/// A packet that is not carried. The scanner cannot go on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault}")]
pub struct ScanError {
    /// How many of the given bytes stand before the packet and may be passed on; they end at a
    /// boundary.
    pub forward: usize,
    /// What is wrong with it.
    pub fault: ScanFault,
}

/// The rule that a relayed packet breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanFault {
    /// A client sends CONNECT once (\[MQTT-3.1.0-2\]).
    #[error("a second CONNECT")]
    SecondConnect,
    /// Packet type 0, or 15 before MQTT 5, §2.1.2.
    #[error("a packet of a reserved type")]
    ReservedType,
    /// A type that this side never sends, §2.1.2.
    #[error("a {0:?} packet from the wrong side")]
    WrongSide(PacketType),
    /// AUTH where no enhanced authentication was agreed, §4.12.
    #[error("an AUTH packet without enhanced authentication")]
    Auth,
    /// Flags that §2.1.3 does not allow for this type, or a PUBLISH of quality of service 3.
    #[error("a {0:?} packet with flags {1:#x}")]
    Flags(PacketType, u8),
    /// The remaining length is over four bytes or not in its shortest form.
    #[error("a remaining length that is too long")]
    Varint,
    /// The packet is larger than may pass.
    #[error("a packet of {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// The whole packet, fixed header included, in bytes.
        size: u32,
        /// The largest packet that may pass, in bytes.
        limit: u32,
    },
    /// Bytes behind a DISCONNECT (\[MQTT-3.14.4-1\], -2).
    #[error("bytes after DISCONNECT")]
    AfterDisconnect,
}

impl ScanFault {
    /// The MQTT 5 reason code that names this fault, §3.14.2.1.
    #[must_use]
    pub fn disconnect_reason(&self) -> DisconnectReason {
        match self {
            Self::SecondConnect | Self::WrongSide(_) | Self::Auth | Self::AfterDisconnect => {
                DisconnectReason::ProtocolError
            }
            Self::ReservedType | Self::Flags(..) | Self::Varint => {
                DisconnectReason::MalformedPacket
            }
            Self::TooLarge { .. } => DisconnectReason::PacketTooLarge,
        }
    }

    /// The same for a client that has had no CONNACK, §3.2.2.2.
    #[must_use]
    pub fn connack_reason(&self) -> ConnackReason {
        match self {
            Self::SecondConnect | Self::WrongSide(_) | Self::Auth | Self::AfterDisconnect => {
                ConnackReason::ProtocolError
            }
            Self::ReservedType | Self::Flags(..) | Self::Varint => ConnackReason::MalformedPacket,
            Self::TooLarge { .. } => ConnackReason::PacketTooLarge,
        }
    }
}

impl PacketScanner {
    /// Watches what a client sends behind its CONNECT. `max_packet` is the largest packet that may
    /// pass, fixed header included, in bytes.
    #[must_use]
    pub fn from_client(version: Version, max_packet: u32) -> Self {
        Self::new(Sender::Client, version, max_packet)
    }

    /// Watches what a broker sends, from its CONNACK on. `max_packet` as for
    /// [`PacketScanner::from_client`]; `u32::MAX` sets no limit.
    #[must_use]
    pub fn from_broker(version: Version, max_packet: u32) -> Self {
        Self::new(Sender::Broker, version, max_packet)
    }

    /// Lets AUTH packets pass, where the CONNECT asked for enhanced authentication and policy lets
    /// the broker see to it. Before MQTT 5 there are none and this changes nothing.
    #[must_use]
    pub fn allow_auth(mut self) -> Self {
        self.auth = self.version >= Version::V5;
        self
    }

    fn new(sender: Sender, version: Version, max_packet: u32) -> Self {
        Self {
            sender,
            version,
            max_packet,
            auth: false,
            disconnected: false,
            left: 0,
        }
    }

    /// Takes the next bytes of the stream: those that the last call did not pass on, then new ones.
    ///
    /// # Errors
    ///
    /// At the first packet that may not pass; see [`ScanError::forward`] for those before it.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Observed, ScanError> {
        self.advance_each(bytes, |_| ())
    }

    /// As [`PacketScanner::advance`], and shows `started` each packet that begins, once.
    ///
    /// # Errors
    ///
    /// As [`PacketScanner::advance`].
    pub fn advance_each(
        &mut self,
        bytes: &[u8],
        mut started: impl FnMut(PacketStart),
    ) -> Result<Observed, ScanError> {
        let mut rest = self.step_over(bytes);
        while !rest.is_empty() {
            let forward = bytes.len() - rest.len();
            let Some((start, behind)) = self
                .start(rest)
                .map_err(|fault| ScanError { forward, fault })?
            else {
                break;
            };
            started(start);
            rest = self.step_over(behind);
        }
        Ok(Observed {
            forward: bytes.len() - rest.len(),
            at_boundary: self.at_boundary(),
        })
    }

    /// Whether the bytes passed on so far end with a packet.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.left == 0
    }

    /// How many of the next `bytes` belong to the packet that has been begun.
    #[must_use]
    pub fn under_way(&self, bytes: &[u8]) -> usize {
        usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()))
    }

    /// Whether a DISCONNECT was passed on, whole or in part: no other may follow.
    #[must_use]
    pub fn disconnected(&self) -> bool {
        self.disconnected
    }

    /// Steps over what belongs to the current packet and gives what follows it.
    fn step_over<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if let Some((_, behind)) = bytes.split_at_checked(left) {
            self.left = 0;
            return behind;
        }
        self.left = self
            .left
            .saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        &[]
    }

    /// Begins the packet at the front of `bytes`; `None` while its fixed header is incomplete.
    fn start<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(PacketStart, &'a [u8])>, ScanFault> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if self.disconnected {
            return Err(ScanFault::AfterDisconnect);
        }
        let kind = PacketType::of(first).ok_or(ScanFault::ReservedType)?;
        self.check_kind(kind)?;
        self.check_flags(kind, first & 0x0F)?;
        let Some(extent) = Extent::read(bytes).map_err(|_| ScanFault::Varint)? else {
            return Ok(None);
        };
        if extent.packet() > self.max_packet {
            return Err(ScanFault::TooLarge {
                size: extent.packet(),
                limit: self.max_packet,
            });
        }
        self.disconnected = kind == PacketType::Disconnect;
        self.left = extent.remaining;
        let start = PacketStart {
            kind,
            flags: first & 0x0F,
            remaining: extent.remaining,
        };
        Ok(Some((
            start,
            bytes.get(usize::from(extent.header)..).unwrap_or_default(),
        )))
    }

    fn check_kind(&self, kind: PacketType) -> Result<(), ScanFault> {
        let from_client = self.sender == Sender::Client;
        let fits = match kind {
            PacketType::Connect if from_client => return Err(ScanFault::SecondConnect),
            PacketType::Auth if self.version < Version::V5 => return Err(ScanFault::ReservedType),
            PacketType::Auth if !self.auth => return Err(ScanFault::Auth),
            PacketType::Publish
            | PacketType::Puback
            | PacketType::Pubrec
            | PacketType::Pubrel
            | PacketType::Pubcomp
            | PacketType::Auth => true,
            PacketType::Disconnect => from_client || self.version >= Version::V5,
            PacketType::Connect
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::Pingreq => from_client,
            PacketType::Connack
            | PacketType::Suback
            | PacketType::Unsuback
            | PacketType::Pingresp => !from_client,
        };
        if fits {
            Ok(())
        } else {
            Err(ScanFault::WrongSide(kind))
        }
    }

    /// MQTT 3.1 gave two of the flags a meaning outside PUBLISH and left the other flags free, so there
    /// only PUBLISH is checked.
    fn check_flags(&self, kind: PacketType, flags: u8) -> Result<(), ScanFault> {
        let fits = match kind.required_flags() {
            None => flags & 0b0110 != 0b0110,
            Some(required) => self.version == Version::V31 || flags == required,
        };
        if fits {
            Ok(())
        } else {
            Err(ScanFault::Flags(kind, flags))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connect::Version;
    use super::super::packet::PacketType;
    use super::super::samples::Random;
    use super::{PacketScanner, PacketStart, ScanFault};

    /// A packet with this first byte and `size` bytes behind its fixed header.
    fn packet(first: u8, size: u32) -> Vec<u8> {
        let mut packet = vec![first];
        super::super::field::write_varint(&mut packet, size);
        packet.resize(packet.len() + size as usize, 0x10);
        packet
    }

    /// What a relay sees that reads `stream` in pieces of these sizes: bytes passed on, packets
    /// that began, how it ended.
    fn relay(
        mut scanner: PacketScanner,
        stream: &[u8],
        mut piece: impl FnMut() -> usize,
    ) -> (Vec<u8>, Vec<PacketStart>, bool, Option<ScanFault>) {
        let (mut passed, mut starts, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let mut unread = stream;
        while !unread.is_empty() {
            let (read, behind) = unread.split_at(piece().clamp(1, unread.len()));
            unread = behind;
            held.extend_from_slice(read);
            match scanner.advance_each(&held, |start| starts.push(start)) {
                Ok(observed) => {
                    passed.extend(held.drain(..observed.forward));
                    assert!(held.len() <= 4, "only the front of a fixed header is held");
                    assert_eq!(observed.at_boundary, scanner.at_boundary());
                }
                Err(error) => {
                    passed.extend(held.drain(..error.forward));
                    return (passed, starts, true, Some(error.fault));
                }
            }
        }
        (passed, starts, scanner.at_boundary(), None)
    }

    #[test]
    fn packets_are_seen_with_their_headers() {
        let stream = [packet(0x82, 9), packet(0x3B, 200), packet(0xC0, 0)].concat();
        let mut starts = Vec::new();
        let mut scanner = PacketScanner::from_client(Version::V5, 1000);
        let observed = scanner
            .advance_each(&stream, |start| starts.push(start))
            .expect("legal");
        assert_eq!(
            (observed.forward, observed.at_boundary),
            (stream.len(), true)
        );
        let start = |kind, flags, remaining| PacketStart {
            kind,
            flags,
            remaining,
        };
        let expected = [
            start(PacketType::Subscribe, 2, 9),
            start(PacketType::Publish, 0xB, 200),
            start(PacketType::Pingreq, 0, 0),
        ];
        assert_eq!(starts, expected);
    }

    #[test]
    fn within_a_packet_is_no_boundary_and_a_torn_header_is_held() {
        let mut scanner = PacketScanner::from_broker(Version::V5, u32::MAX);
        let observed = scanner.advance(&packet(0x30, 10)[..5]).expect("legal");
        assert_eq!((observed.forward, observed.at_boundary), (5, false));
        let observed = scanner
            .advance(&[0, 0, 0, 0, 0, 0, 0, 0x30, 0x80])
            .expect("legal");
        assert_eq!((observed.forward, observed.at_boundary), (7, true));
        let observed = scanner.advance(&[0x30, 0x80, 0x01, 0]).expect("legal");
        assert_eq!((observed.forward, observed.at_boundary), (4, false));
    }

    #[test]
    fn each_side_sends_its_own_types_only() {
        use ScanFault::{Auth, ReservedType, SecondConnect, WrongSide};
        let flags = |number: u8| match number {
            6 | 8 | 10 => 2,
            _ => 0,
        };
        let fault = |mut scanner: PacketScanner, number: u8| {
            scanner
                .advance(&packet(number << 4 | flags(number), 2))
                .err()
                .map(|error| error.fault)
        };
        for version in [Version::V31, Version::V311, Version::V5] {
            let client = |number| fault(PacketScanner::from_client(version, 100), number);
            let broker = |number| fault(PacketScanner::from_broker(version, 100), number);
            for number in [3, 4, 5, 6, 7] {
                assert_eq!((client(number), broker(number)), (None, None));
            }
            for (number, kind) in [
                (8, PacketType::Subscribe),
                (10, PacketType::Unsubscribe),
                (12, PacketType::Pingreq),
            ] {
                assert_eq!(
                    (client(number), broker(number)),
                    (None, Some(WrongSide(kind)))
                );
            }
            for (number, kind) in [
                (2, PacketType::Connack),
                (9, PacketType::Suback),
                (11, PacketType::Unsuback),
                (13, PacketType::Pingresp),
            ] {
                assert_eq!(
                    (client(number), broker(number)),
                    (Some(WrongSide(kind)), None)
                );
            }
            assert_eq!(client(1), Some(SecondConnect));
            assert_eq!(broker(1), Some(WrongSide(PacketType::Connect)));
            assert_eq!(
                (client(0), broker(0)),
                (Some(ReservedType), Some(ReservedType))
            );
            let five = version == Version::V5;
            assert_eq!(client(14), None);
            let disconnect = (!five).then_some(WrongSide(PacketType::Disconnect));
            assert_eq!(broker(14), disconnect);
            let auth = Some(if five { Auth } else { ReservedType });
            assert_eq!((client(15), broker(15)), (auth, auth));
            let allowed = fault(PacketScanner::from_client(version, 100).allow_auth(), 15);
            assert_eq!(allowed, (!five).then_some(ReservedType));
        }
    }

    #[test]
    fn what_may_not_pass_is_refused_behind_what_may() {
        use PacketType::{Pingreq, Publish, Subscribe};
        let size = ScanFault::TooLarge {
            size: 101,
            limit: 100,
        };
        let cases = [
            (packet(0x30, 99), size),
            (vec![0x30, 0x80, 0x00], ScanFault::Varint),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF], ScanFault::Varint),
            (packet(0x36, 5), ScanFault::Flags(Publish, 6)),
            (packet(0x80, 5), ScanFault::Flags(Subscribe, 0)),
            (packet(0xC1, 0), ScanFault::Flags(Pingreq, 1)),
        ];
        for (bad, expected) in cases {
            let good = packet(0x30, 98);
            let stream = [good.clone(), bad].concat();
            let mut scanner = PacketScanner::from_client(Version::V311, 100);
            let error = scanner.advance(&stream).expect_err("it may not pass");
            assert_eq!((error.forward, error.fault), (good.len(), expected));
        }
    }

    #[test]
    fn nothing_follows_a_disconnect() {
        let stream = [packet(0xE0, 0), packet(0xC0, 0)].concat();
        let mut scanner = PacketScanner::from_client(Version::V311, 100);
        let error = scanner.advance(&stream).expect_err("it may not pass");
        assert_eq!(
            (error.forward, error.fault),
            (2, ScanFault::AfterDisconnect)
        );
        assert!(scanner.disconnected());
    }

    #[test]
    fn mqtt_3_1_leaves_flags_free_outside_publish() {
        let mut scanner = PacketScanner::from_client(Version::V31, 100);
        assert!(scanner.advance(&packet(0x8A, 5)).is_ok());
        assert!(scanner.advance(&packet(0x36, 5)).is_err());
    }

    #[test]
    fn a_stream_is_seen_alike_however_it_is_split() {
        let mut random = Random::new(5);
        for round in 0..3_000 {
            let mut stream = Vec::new();
            for _ in 0..random.below(8) {
                let first = random.pick(&[0x30, 0x3D, 0x40, 0x62, 0x82, 0xC0, 0xD0, 0xF0, 0x36]);
                let size = random.pick(&[0, 2, 127, 128, 300, 17_000]);
                stream.extend(packet(first, size));
            }
            if round % 3 == 0 && !stream.is_empty() {
                let place = random.below(stream.len().min(200));
                stream[place] = random.next() as u8;
            }
            let scanner = PacketScanner::from_client(Version::V5, 16_000).allow_auth();
            let whole = relay(scanner.clone(), &stream, || usize::MAX);
            let mut size = 1 + random.below(40);
            let split = relay(scanner.clone(), &stream, || {
                size = (size * 7 + 3) % 97;
                size
            });
            // After a fault the bytes behind it are never read, so all else must agree.
            assert_eq!(split, whole);
            if stream.len() < 2_000 {
                assert_eq!(relay(scanner, &stream, || 1), whole);
            }
        }
    }
}
