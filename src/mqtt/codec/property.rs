//! The properties of a CONNECT and of its will: MQTT 5.0 §2.2.2, §3.1.2.11, §3.1.3.2.
//!
//! A [`Properties`] was checked as a whole when it was made: every one is known in its place, of
//! its type, of a legal value, and there once (User Property may repeat).

use std::fmt;

use super::fault::Fault;
use super::field::{Fields, is_topic_name};

/// A property that may stand in a CONNECT or its will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum PropertyId {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SessionExpiryInterval = 0x11,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
}

/// Where a list of properties stands, which decides what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
}

impl Place {
    fn property(self, id: u32) -> Option<PropertyId> {
        match self {
            Self::Connect => connect_property(id),
            Self::Will => will_property(id),
        }
    }
}

fn connect_property(id: u32) -> Option<PropertyId> {
    Some(match id {
        0x11 => PropertyId::SessionExpiryInterval,
        0x15 => PropertyId::AuthenticationMethod,
        0x16 => PropertyId::AuthenticationData,
        0x17 => PropertyId::RequestProblemInformation,
        0x19 => PropertyId::RequestResponseInformation,
        0x21 => PropertyId::ReceiveMaximum,
        0x22 => PropertyId::TopicAliasMaximum,
        0x26 => PropertyId::UserProperty,
        0x27 => PropertyId::MaximumPacketSize,
        _ => return None,
    })
}

fn will_property(id: u32) -> Option<PropertyId> {
    Some(match id {
        0x01 => PropertyId::PayloadFormatIndicator,
        0x02 => PropertyId::MessageExpiryInterval,
        0x03 => PropertyId::ContentType,
        0x08 => PropertyId::ResponseTopic,
        0x09 => PropertyId::CorrelationData,
        0x18 => PropertyId::WillDelayInterval,
        0x26 => PropertyId::UserProperty,
        _ => return None,
    })
}

/// A property's value, in the data type of §2.2.2.2. It may be a secret (Authentication Data), so
/// it has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A Byte that is 0 or 1.
    Flag(bool),
    /// A Two Byte Integer.
    TwoBytes(u16),
    /// A Four Byte Integer.
    FourBytes(u32),
    /// A UTF-8 Encoded String.
    Text(&'a str),
    /// Binary Data.
    Binary(&'a [u8]),
    /// A UTF-8 String Pair: name, value.
    Pair(&'a str, &'a str),
}

/// One property. Its `Debug` names it and keeps the value to itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Property<'a> {
    /// Which one.
    pub id: PropertyId,
    /// What it says.
    pub value: Value<'a>,
}

impl fmt::Debug for Property<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}(..)", self.id)
    }
}

impl<'a> Property<'a> {
    fn read(fields: &mut Fields<'a>, place: Place) -> Result<Self, Fault> {
        let id = fields.varint()?;
        let id = place.property(id).ok_or(Fault::UnknownProperty(id))?;
        let value = Value::read(fields, id)?;
        Ok(Self { id, value })
    }
}

impl<'a> Value<'a> {
    fn read(fields: &mut Fields<'a>, id: PropertyId) -> Result<Self, Fault> {
        let value = match id {
            PropertyId::PayloadFormatIndicator
            | PropertyId::RequestProblemInformation
            | PropertyId::RequestResponseInformation => Self::flag(fields.byte()?, id)?,
            PropertyId::ReceiveMaximum | PropertyId::TopicAliasMaximum => {
                Self::TwoBytes(fields.two_bytes()?)
            }
            PropertyId::MessageExpiryInterval
            | PropertyId::SessionExpiryInterval
            | PropertyId::WillDelayInterval
            | PropertyId::MaximumPacketSize => Self::FourBytes(fields.four_bytes()?),
            PropertyId::ContentType => Self::Text(fields.text("content type")?),
            PropertyId::ResponseTopic => Self::Text(fields.text("response topic")?),
            PropertyId::AuthenticationMethod => Self::Text(fields.text("authentication method")?),
            PropertyId::CorrelationData | PropertyId::AuthenticationData => {
                Self::Binary(fields.binary()?)
            }
            PropertyId::UserProperty => {
                Self::Pair(fields.text("user property")?, fields.text("user property")?)
            }
        };
        value.check(id)?;
        Ok(value)
    }

    fn flag(byte: u8, id: PropertyId) -> Result<Self, Fault> {
        match byte {
            0 => Ok(Self::Flag(false)),
            1 => Ok(Self::Flag(true)),
            _ => Err(Fault::PropertyValue(id)),
        }
    }

    /// The values that a property's own section forbids: zero for Receive Maximum (§3.1.2.11.3)
    /// and Maximum Packet Size (§3.1.2.11.4), a wildcard in Response Topic (\[MQTT-3.3.2-14\]).
    fn check(&self, id: PropertyId) -> Result<(), Fault> {
        let legal = match (id, self) {
            (PropertyId::ReceiveMaximum, Self::TwoBytes(value)) => *value != 0,
            (PropertyId::MaximumPacketSize, Self::FourBytes(value)) => *value != 0,
            (PropertyId::ResponseTopic, Self::Text(topic)) => is_topic_name(topic),
            _ => true,
        };
        if legal {
            Ok(())
        } else {
            Err(Fault::PropertyValue(id))
        }
    }
}

/// A checked list of properties, in the order in which they stand; empty before MQTT 5.
#[derive(Clone, Copy)]
pub struct Properties<'a> {
    bytes: &'a [u8],
    place: Place,
}

impl<'a> Properties<'a> {
    pub(super) fn none(place: Place) -> Self {
        Self { bytes: &[], place }
    }

    /// Reads the Property Length and all that it spans.
    pub(super) fn read(fields: &mut Fields<'a>, place: Place) -> Result<Self, Fault> {
        let properties = Self::read_unchecked(fields, place)?;
        properties.check()?;
        Ok(properties)
    }

    /// The same whatever it spans: what stands before the first fault can be found in it.
    pub(super) fn read_unchecked(fields: &mut Fields<'a>, place: Place) -> Result<Self, Fault> {
        let length = fields.varint()?;
        let bytes = fields.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(Self { bytes, place })
    }

    /// All properties, in order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let Self { bytes, place } = *self;
        let mut fields = Fields::new(bytes);
        // Every one was read without a fault before, or nobody asks for those behind a fault.
        std::iter::from_fn(move || Property::read(&mut fields, place).ok())
    }

    /// The first property of this kind; of all but User Property the only one.
    #[must_use]
    pub fn find(&self, id: PropertyId) -> Option<Value<'a>> {
        self.iter()
            .find(|property| property.id == id)
            .map(|property| property.value)
    }

    fn check(&self) -> Result<(), Fault> {
        let mut fields = Fields::new(self.bytes);
        let mut seen = 0_u64;
        while !fields.is_empty() {
            let Property { id, .. } = Property::read(&mut fields, self.place)?;
            let bit = 1 << (id as u8);
            if seen & bit != 0 && id != PropertyId::UserProperty {
                return Err(Fault::RepeatedProperty(id));
            }
            seen |= bit;
        }
        let has = |id: PropertyId| seen & (1 << (id as u8)) != 0;
        if has(PropertyId::AuthenticationData) && !has(PropertyId::AuthenticationMethod) {
            return Err(Fault::AuthenticationMethodMissing);
        }
        Ok(())
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}
