//! The CONNECT packet, read strictly: MQTT 5.0 §3.1, MQTT 3.1.1 §3.1, MQTT 3.1 §3.1.
//!
//! A [`Connect`] borrows the bytes it was read from and can only be made by [`Connect::read`], so
//! its fields are checked. Where a version leaves a choice we refuse: what a broker could read
//! otherwise than we do is a way around us. Beyond 3.1.1 and 5 this means that 3.1, too, must leave
//! the reserved flag and unused will flags zero, and may not leave out a flagged user name.

use std::fmt;

use super::fault::{ConnectError, Fault};
use super::field::{Fields, MAX_VARINT, is_topic_name};
use super::packet::{Extent, PacketType};
use super::property::{Place, Properties, PropertyId, Value};

/// The first byte of every CONNECT, §3.1.1.
pub(super) const FIRST_BYTE: u8 = (PacketType::Connect as u8) << 4;

const NAME_31: &[u8] = b"\x00\x06MQIsdp";
const NAME: &[u8] = b"\x00\x04MQTT";

/// Set in the level by mosquitto's bridges, to be told from other clients.
const BRIDGE_BIT: u8 = 0x80;

/// No CONNECT is shorter than a 3.1.1 one with an empty client id: name, level, flags, keep alive,
/// length of the client id. In bytes, behind the fixed header.
const SHORTEST: u32 = 6 + 1 + 1 + 2 + 2;

/// What a CONNECT may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet that is read, fixed header included, in bytes.
    pub max_packet: u32,
    /// Whether mosquitto's bridge levels 0x83 and 0x84 are let through. They are in no standard,
    /// and a bridge that is told "unacceptable version" tries again with the plain level.
    pub bridges: bool,
}

impl Default for Limits {
    /// 64 KiB and no bridges.
    fn default() -> Self {
        Self {
            max_packet: 64 * 1024,
            bridges: false,
        }
    }
}

/// How far the reading of a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<T> {
    /// Nothing is wrong so far; read more behind what there is and try again.
    NeedMore,
    /// The packet is complete.
    Complete(T),
}

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5.0: `MQTT`, level 5.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}

/// How surely a message is delivered, §4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum QualityOfService {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

/// The message that the broker publishes when the client is gone, §3.1.2.5.
///
/// Its `Debug` shows no topic and no payload.
#[derive(Clone, Copy)]
pub struct Will<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: QualityOfService,
    retain: bool,
    properties: Properties<'a>,
}

impl<'a> Will<'a> {
    fn read(fields: &mut Fields<'a>, version: Version, flags: Flags) -> Result<Self, Fault> {
        let properties = read_properties(fields, version, Place::Will)?;
        let topic = fields.text("will topic")?;
        if !is_topic_name(topic) {
            return Err(Fault::WillTopic);
        }
        let payload = fields.binary()?;
        let qos = flags.will_qos()?;
        Ok(Self {
            topic,
            payload,
            qos,
            retain: flags.has(Flags::WILL_RETAIN),
            properties,
        })
    }

    /// The topic that it is published to: not empty, no wildcard.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The message itself, which is not looked into.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// How surely it is delivered.
    #[must_use]
    pub fn qos(&self) -> QualityOfService {
        self.qos
    }

    /// Whether the broker retains it.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// The will properties, §3.1.3.2; empty before MQTT 5.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        self.properties
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Will")
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}

/// A complete CONNECT that keeps every rule of its version.
///
/// Client id, user name and password may each be a secret, so `Debug` shows none of them.
#[derive(Clone, Copy)]
pub struct Connect<'a> {
    bytes: &'a [u8],
    /// Protocol name and level, as sent.
    pub(super) name_and_level: &'a [u8],
    pub(super) flags: Flags,
    /// From the keep alive to the will, as sent.
    pub(super) between: &'a [u8],
    version: Version,
    keep_alive: u16,
    properties: Properties<'a>,
    client_id: &'a str,
    will: Option<Will<'a>>,
    user_name: Option<&'a str>,
    password: Option<&'a [u8]>,
}

impl<'a> Connect<'a> {
    /// Reads the CONNECT at the front of `buffer`, which may end anywhere and may go on behind it.
    ///
    /// To be called again with the same bytes and more while it says [`Progress::NeedMore`]; such
    /// a call looks at the first bytes only, so a client that sends byte by byte costs little.
    ///
    /// # Errors
    ///
    /// As soon as the bytes that are there show that no continuation can be a CONNECT within
    /// `limits`. The same bytes cut anywhere give the same error.
    pub fn read(buffer: &'a [u8], limits: &Limits) -> Result<Progress<Self>, ConnectError> {
        let unanswerable = |fault| ConnectError {
            version: None,
            maximum_packet_size: None,
            fault,
        };
        let Some(extent) = read_extent(buffer).map_err(unanswerable)? else {
            return Ok(Progress::NeedMore);
        };
        let (packet, complete) = cut(buffer, extent);
        let body = packet.get(usize::from(extent.header)..).unwrap_or_default();
        check_size(extent, body, *limits)?;
        let Some(opening) = Opening::read(body, *limits)? else {
            return Ok(Progress::NeedMore);
        };
        if !complete {
            return Ok(Progress::NeedMore);
        }
        Self::read_rest(packet, opening)
            .map(Progress::Complete)
            .map_err(|fault| ConnectError {
                version: Some(opening.version),
                maximum_packet_size: opening.maximum_packet_size(),
                fault,
            })
    }

    fn read_rest(packet: &'a [u8], opening: Opening<'a>) -> Result<Self, Fault> {
        let Opening {
            name_and_level,
            version,
            flags,
            rest,
        } = opening;
        let mut fields = Fields::new(rest);
        let keep_alive = fields.two_bytes()?;
        let properties = read_properties(&mut fields, version, Place::Connect)?;
        let client_id = fields.text("client id")?;
        check_client_id(client_id, version, flags)?;
        let will = flags
            .has(Flags::WILL)
            .then(|| Will::read(&mut fields, version, flags))
            .transpose()?;
        let between = fields.taken();
        let user_name = flags
            .has(Flags::USER_NAME)
            .then(|| fields.text("user name"))
            .transpose()?;
        let password = flags
            .has(Flags::PASSWORD)
            .then(|| fields.binary())
            .transpose()?;
        fields.finish()?;
        Ok(Self {
            bytes: packet,
            name_and_level,
            flags,
            between,
            version,
            keep_alive,
            properties,
            client_id,
            will,
            user_name,
            password,
        })
    }

    /// The packet as it was sent. What follows it in the buffer was sent behind it.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The version that the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the client says that it is a mosquitto bridge; see [`Limits::bridges`].
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.name_and_level
            .last()
            .is_some_and(|level| level & BRIDGE_BIT != 0)
    }

    /// The client identifier, §3.1.3.1. Empty where the broker is to choose one.
    ///
    /// MQTT 3.1's limit of 23 characters is not enforced: brokers take longer ones, and devices
    /// use them.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.client_id
    }

    /// The user name, §3.1.3.5.
    #[must_use]
    pub fn user_name(&self) -> Option<&'a str> {
        self.user_name
    }

    /// The password, §3.1.3.6: a secret. An empty one is `Some`.
    #[must_use]
    pub fn password(&self) -> Option<&'a [u8]> {
        self.password
    }

    /// The keep alive in seconds, §3.1.2.10; 0 turns it off. The broker closes after one and a
    /// half times this without a packet.
    #[must_use]
    pub fn keep_alive(&self) -> u16 {
        self.keep_alive
    }

    /// Clean Start, §3.1.2.4; Clean Session in MQTT 3.x.
    #[must_use]
    pub fn clean_start(&self) -> bool {
        self.flags.has(Flags::CLEAN_START)
    }

    /// The will, §3.1.2.5.
    #[must_use]
    pub fn will(&self) -> Option<&Will<'a>> {
        self.will.as_ref()
    }

    /// The CONNECT properties, §3.1.2.11; empty before MQTT 5.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        self.properties
    }

    /// The Authentication Method, §3.1.2.11.9: present where the client wants an exchange of AUTH
    /// packets rather than, or besides, a password.
    #[must_use]
    pub fn authentication_method(&self) -> Option<&'a str> {
        match self.properties.find(PropertyId::AuthenticationMethod)? {
            Value::Text(method) => Some(method),
            _ => None,
        }
    }

    /// Request Problem Information, §3.1.2.11.7; true where it is absent. It does not bear on
    /// CONNACK and DISCONNECT, which may say their reason either way.
    #[must_use]
    pub fn request_problem_information(&self) -> bool {
        !matches!(
            self.properties.find(PropertyId::RequestProblemInformation),
            Some(Value::Flag(false))
        )
    }

    /// The Session Expiry Interval in seconds, §3.1.2.11.2; `None` where it is absent, which in
    /// MQTT 5 means 0. 4 294 967 295 means never.
    #[must_use]
    pub fn session_expiry(&self) -> Option<u32> {
        self.four_bytes(PropertyId::SessionExpiryInterval)
    }

    /// The Maximum Packet Size that the client takes, in bytes, §3.1.2.11.4; `None` is no limit.
    #[must_use]
    pub fn maximum_packet_size(&self) -> Option<u32> {
        self.four_bytes(PropertyId::MaximumPacketSize)
    }

    fn four_bytes(&self, id: PropertyId) -> Option<u32> {
        match self.properties.find(id)? {
            Value::FourBytes(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connect")
            .field("bytes", &self.bytes.len())
            .field("version", &self.version)
            .field("keep_alive", &self.keep_alive)
            .field("properties", &self.properties)
            .field("will", &self.will)
            .field("has_user_name", &self.user_name.is_some())
            .field("has_password", &self.password.is_some())
            .finish_non_exhaustive()
    }
}

/// Reads the fixed header, and refuses what is none of a CONNECT.
fn read_extent(buffer: &[u8]) -> Result<Option<Extent>, Fault> {
    let Some(&first_byte) = buffer.first() else {
        return Ok(None);
    };
    if PacketType::of(first_byte) != Some(PacketType::Connect) {
        return Err(Fault::NotConnect { first_byte });
    }
    if first_byte != FIRST_BYTE {
        return Err(Fault::HeaderFlags(first_byte & 0x0F));
    }
    let Some(extent) = Extent::read(buffer).map_err(|_| Fault::Varint)? else {
        return Ok(None);
    };
    if extent.remaining < SHORTEST {
        return Err(Fault::Truncated);
    }
    Ok(Some(extent))
}

/// Refuses what is larger than `limits` as soon as its version is known too: that is how it is answered,
/// however the bytes arrive.
fn check_size(extent: Extent, body: &[u8], limits: Limits) -> Result<(), ConnectError> {
    if extent.packet() <= limits.max_packet {
        return Ok(());
    }
    let version = match read_protocol(body) {
        Ok(Some((name, level))) => version_of(name, level, limits).ok(),
        Ok(None) => return Ok(()),
        Err(_) => None,
    };
    Err(ConnectError {
        version,
        maximum_packet_size: None,
        fault: Fault::TooLarge {
            size: extent.packet(),
            limit: limits.max_packet,
        },
    })
}

/// What there is of the packet at the front of `buffer`, and whether that is all of it.
fn cut(buffer: &[u8], extent: Extent) -> (&[u8], bool) {
    match buffer.get(..usize::try_from(extent.packet()).unwrap_or(usize::MAX)) {
        Some(packet) => (packet, true),
        None => (buffer, false),
    }
}

fn read_properties<'a>(
    fields: &mut Fields<'a>,
    version: Version,
    place: Place,
) -> Result<Properties<'a>, Fault> {
    match version {
        Version::V31 | Version::V311 => Ok(Properties::none(place)),
        Version::V5 => Properties::read(fields, place),
    }
}

/// A client id may be empty in MQTT 5; in 3.1.1 only with clean session (\[MQTT-3.1.3-7\] of
/// 3.1.1), as the broker could never find that session again; in 3.1 never.
fn check_client_id(client_id: &str, version: Version, flags: Flags) -> Result<(), Fault> {
    let may_be_empty = match version {
        Version::V31 => false,
        Version::V311 => flags.has(Flags::CLEAN_START),
        Version::V5 => true,
    };
    if client_id.is_empty() && !may_be_empty {
        Err(Fault::ClientIdMissing)
    } else {
        Ok(())
    }
}

/// The fields which stand at the same place in every version, §3.1.2.1 to §3.1.2.3. They are read
/// before the packet is complete, so that what is no CONNECT is refused at once.
#[derive(Clone, Copy)]
struct Opening<'a> {
    name_and_level: &'a [u8],
    version: Version,
    flags: Flags,
    rest: &'a [u8],
}

impl<'a> Opening<'a> {
    /// The Maximum Packet Size, though the CONNECT may have a fault behind it: that is how it is told so.
    fn maximum_packet_size(&self) -> Option<u32> {
        if self.version < Version::V5 {
            return None;
        }
        let mut fields = Fields::new(self.rest);
        fields.two_bytes().ok()?;
        let properties = Properties::read_unchecked(&mut fields, Place::Connect).ok()?;
        match properties.find(PropertyId::MaximumPacketSize)? {
            Value::FourBytes(size) => Some(size),
            _ => None,
        }
    }

    /// `None` while `body` ends before the connect flags.
    fn read(body: &'a [u8], limits: Limits) -> Result<Option<Self>, ConnectError> {
        let Some((name, level)) = read_protocol(body)? else {
            return Ok(None);
        };
        let version = version_of(name, level, limits)?;
        let Some((name_and_level, rest)) = body.split_at_checked(name.len() + 1) else {
            return Ok(None);
        };
        let Some((&flags, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let flags = Flags(flags);
        flags.check(version).map_err(|fault| ConnectError {
            version: Some(version),
            maximum_packet_size: None,
            fault,
        })?;
        Ok(Some(Self {
            name_and_level,
            version,
            flags,
            rest,
        }))
    }
}

/// The protocol name with its length, and the level behind it; `None` while they are incomplete.
fn read_protocol(body: &[u8]) -> Result<Option<(&'static [u8], u8)>, ConnectError> {
    for name in [NAME, NAME_31] {
        if let Some(rest) = body.strip_prefix(name) {
            return Ok(rest.first().map(|&level| (name, level)));
        }
    }
    if NAME.starts_with(body) || NAME_31.starts_with(body) {
        return Ok(None);
    }
    Err(ConnectError {
        version: None,
        maximum_packet_size: None,
        fault: Fault::UnknownProtocol,
    })
}

/// The version that name and level stand for, §3.1.2.2.
///
/// An unknown level is answered in the form of the name's newest version at or below it: only who
/// speaks level 5 or above can read a reason code.
fn version_of(name: &[u8], level: u8, limits: Limits) -> Result<Version, ConnectError> {
    let plain = if limits.bridges && matches!(level, 0x83 | 0x84) {
        level & !BRIDGE_BIT
    } else {
        level
    };
    let answer = match (name == NAME_31, plain) {
        (true, 3) => return Ok(Version::V31),
        (false, 4) => return Ok(Version::V311),
        (false, 5) => return Ok(Version::V5),
        (false, 6..BRIDGE_BIT) => Version::V5,
        (true, _) => Version::V31,
        (false, _) => Version::V311,
    };
    Err(ConnectError {
        version: Some(answer),
        maximum_packet_size: None,
        fault: Fault::UnsupportedVersion { level },
    })
}

/// The Connect Flags byte, §3.1.2.3.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u8);

impl Flags {
    const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    const WILL: u8 = 0x04;
    const WILL_QOS: u8 = 0x18;
    const WILL_RETAIN: u8 = 0x20;
    const PASSWORD: u8 = 0x40;
    const USER_NAME: u8 = 0x80;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// The same flags, but for what they say of user name and password.
    pub(super) fn with_credentials(self, user_name: bool, password: bool) -> Self {
        let user_name = if user_name { Self::USER_NAME } else { 0 };
        let password = if password { Self::PASSWORD } else { 0 };
        Self(self.0 & !(Self::USER_NAME | Self::PASSWORD) | user_name | password)
    }

    fn will_qos(self) -> Result<QualityOfService, Fault> {
        match (self.0 & Self::WILL_QOS) >> 3 {
            0 => Ok(QualityOfService::AtMostOnce),
            1 => Ok(QualityOfService::AtLeastOnce),
            2 => Ok(QualityOfService::ExactlyOnce),
            _ => Err(Fault::WillQos),
        }
    }

    fn check(self, version: Version) -> Result<(), Fault> {
        if self.has(Self::RESERVED) {
            return Err(Fault::ReservedFlag);
        }
        if !self.has(Self::WILL) && self.has(Self::WILL_QOS | Self::WILL_RETAIN) {
            return Err(Fault::WillFlags);
        }
        self.will_qos()?;
        if version < Version::V5 && self.has(Self::PASSWORD) && !self.has(Self::USER_NAME) {
            return Err(Fault::PasswordWithoutUserName);
        }
        Ok(())
    }
}

const _: () = assert!(MAX_VARINT < u32::MAX - 5, "a packet's size fits u32");
