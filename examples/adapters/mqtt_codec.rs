//! MQTT packets without their version: `rmqtt-codec` reads and writes 3.1, 3.1.1 and 5, this file
//! turns both of its packet types into one, as far as a broker without sessions needs them.
//! No I/O and no rules: what a packet means is the session's to say.

use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::error::{DecodeError, EncodeError};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, PublishProperties, RetainHandling};
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

use crate::bus::{Delivery, MAX_MESSAGE, Qos, Replay, Wish};

/// A packet's body: the largest message, and a topic and properties beside it.
const MAX_PACKET: u32 = MAX_MESSAGE as u32 + 64 * 1024;

pub(crate) type PacketId = NonZeroU16;

/// What a client sends.
#[derive(Debug)]
pub(crate) enum Incoming {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    Puback(PacketId),
    Pubrel(PacketId),
    Subscribe {
        id: PacketId,
        asked: Vec<Asked>,
    },
    Unsubscribe {
        id: PacketId,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        discard_will: bool,
    },
    /// Only a server sends it, or nobody asked for it.
    Unexpected,
}

pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) has_secret: bool,
    /// Another way to authenticate than by password (MQTT 5 §4.12).
    pub(crate) enhanced: bool,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) receive_maximum: Option<NonZeroU16>,
    pub(crate) will: Option<Publish>,
}

/// The will holds a payload and the packet held a secret: neither is printed.
impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// One filter of a SUBSCRIBE, as it was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) filter: String,
    pub(crate) wish: Wish,
    pub(crate) has_identifier: bool,
}

/// What the broker answers.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Connack {
        assigned_id: Option<String>,
    },
    Refused(ConnectRefusal),
    Publish {
        delivery: Delivery,
        id: Option<PacketId>,
    },
    Puback(PacketId),
    Pubrec(PacketId),
    Pubcomp {
        id: PacketId,
        known: bool,
    },
    Suback {
        id: PacketId,
        grants: Vec<Grant>,
    },
    Unsuback {
        id: PacketId,
        existed: Vec<bool>,
    },
    Pong,
    /// MQTT 3 has no such packet from a server; there, the close has to say it.
    Disconnect(DisconnectReasonCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectRefusal {
    NoSecret,
    BadClientId,
    EnhancedAuthentication,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Granted(Qos),
    InvalidFilter,
    NoSharedSubscriptions,
    NoIdentifiers,
    TooMany,
}

/// Whether a packet went into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoded {
    Yes,
    /// Larger than the client takes (MQTT-3.1.2-25), or unknown to its version.
    Discarded,
}

/// Reads the version off the first packet and speaks it from then on.
#[derive(Debug, Default)]
pub(crate) enum Codec {
    #[default]
    Undecided,
    V3(v3::Codec),
    V5 {
        codec: v5::Codec,
        client_takes: Option<usize>,
    },
}

impl Decoder for Codec {
    type Item = Incoming;
    type Error = DecodeError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Incoming>, DecodeError> {
        if let Self::Undecided = self {
            let Some(version) = VersionCodec.decode(bytes)? else {
                return Ok(None);
            };
            *self = Self::speaking(version);
        }
        match self {
            Self::Undecided => Ok(None),
            Self::V3(codec) => Ok(codec.decode(bytes)?.map(|(packet, _)| from_v3(packet))),
            Self::V5 {
                codec,
                client_takes,
            } => {
                let Some((packet, _)) = codec.decode(bytes)? else {
                    return Ok(None);
                };
                if let v5::Packet::Connect(connect) = &packet {
                    *client_takes = connect.max_packet_size.map(|size| size.get() as usize);
                }
                Ok(Some(from_v5(packet)))
            }
        }
    }
}

impl Codec {
    fn speaking(version: ProtocolVersion) -> Self {
        match version {
            ProtocolVersion::MQTT3 => Self::V3(v3::Codec::new(MAX_PACKET)),
            ProtocolVersion::MQTT5 => Self::V5 {
                codec: v5::Codec::new(MAX_PACKET, 0),
                client_takes: None,
            },
        }
    }

    pub(crate) fn write(
        &mut self,
        packet: Outgoing,
        bytes: &mut BytesMut,
    ) -> Result<Encoded, EncodeError> {
        match self {
            Self::Undecided => return Ok(Encoded::Discarded),
            Self::V3(codec) => {
                let Some(packet) = to_v3(packet) else {
                    return Ok(Encoded::Discarded);
                };
                codec.encode(packet, bytes)?;
            }
            Self::V5 {
                codec,
                client_takes,
            } => {
                codec.encode(to_v5(packet), bytes)?;
                // The crate's own check of this limit underflows on very small ones.
                if client_takes.is_some_and(|size| bytes.len() > size) {
                    bytes.clear();
                    return Ok(Encoded::Discarded);
                }
            }
        }
        Ok(Encoded::Yes)
    }
}

fn from_v3(packet: v3::Packet) -> Incoming {
    match packet {
        v3::Packet::Connect(connect) => Incoming::Connect(Box::new(connect_v3(*connect))),
        v3::Packet::Publish(publish) => Incoming::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Incoming::Puback(packet_id),
        v3::Packet::PublishRelease { packet_id } => Incoming::Pubrel(packet_id),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => {
            let asked = topic_filters.into_iter();
            let asked = asked.map(|(filter, qos)| asked_v3(&filter, qos)).collect();
            Incoming::Subscribe {
                id: packet_id,
                asked,
            }
        }
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => {
            let filters = topic_filters.iter().map(ToString::to_string).collect();
            Incoming::Unsubscribe {
                id: packet_id,
                filters,
            }
        }
        v3::Packet::PingRequest => Incoming::Ping,
        v3::Packet::Disconnect => Incoming::Disconnect { discard_will: true },
        v3::Packet::ConnectAck(_)
        | v3::Packet::PublishReceived { .. }
        | v3::Packet::PublishComplete { .. }
        | v3::Packet::SubscribeAck { .. }
        | v3::Packet::UnsubscribeAck { .. }
        | v3::Packet::PingResponse => Incoming::Unexpected,
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    match packet {
        v5::Packet::Connect(connect) => Incoming::Connect(Box::new(connect_v5(*connect))),
        v5::Packet::Publish(publish) => Incoming::Publish(publish),
        v5::Packet::PublishAck(ack) => Incoming::Puback(ack.packet_id),
        v5::Packet::PublishRelease(ack) => Incoming::Pubrel(ack.packet_id),
        v5::Packet::Subscribe(subscribe) => {
            let has_identifier = subscribe.id.is_some();
            let asked = subscribe.topic_filters.into_iter();
            let asked = asked.map(|(filter, options)| asked_v5(&filter, options, has_identifier));
            Incoming::Subscribe {
                id: subscribe.packet_id,
                asked: asked.collect(),
            }
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            let filters = unsubscribe
                .topic_filters
                .iter()
                .map(ToString::to_string)
                .collect();
            Incoming::Unsubscribe {
                id: unsubscribe.packet_id,
                filters,
            }
        }
        v5::Packet::PingRequest => Incoming::Ping,
        // MQTT-3.14.4-3: any other reason leaves the will to be published.
        v5::Packet::Disconnect(disconnect) => Incoming::Disconnect {
            discard_will: disconnect.reason_code == DisconnectReasonCode::NormalDisconnection,
        },
        v5::Packet::ConnectAck(_)
        | v5::Packet::PublishReceived(_)
        | v5::Packet::PublishComplete(_)
        | v5::Packet::SubscribeAck(_)
        | v5::Packet::UnsubscribeAck(_)
        | v5::Packet::PingResponse
        | v5::Packet::Auth(_) => Incoming::Unexpected,
    }
}

fn connect_v3(connect: v3::Connect) -> Connect {
    let will = connect.last_will.map(|will| Publish {
        dup: false,
        retain: will.retain,
        qos: will.qos,
        topic: will.topic,
        packet_id: None,
        payload: will.message,
        properties: None,
    });
    Connect {
        client_id: connect.client_id.to_string(),
        has_secret: is_secret(connect.password.as_ref()),
        enhanced: false,
        keep_alive: keep_alive(connect.keep_alive),
        receive_maximum: None,
        will,
    }
}

fn connect_v5(connect: v5::Connect) -> Connect {
    Connect {
        client_id: connect.client_id.to_string(),
        has_secret: is_secret(connect.password.as_ref()),
        enhanced: connect.auth_method.is_some(),
        keep_alive: keep_alive(connect.keep_alive),
        receive_maximum: connect.receive_max,
        will: connect.last_will.map(will_v5),
    }
}

fn will_v5(will: v5::LastWill) -> Publish {
    let properties = PublishProperties {
        topic_alias: None,
        correlation_data: will.correlation_data,
        message_expiry_interval: will.message_expiry_interval,
        content_type: will.content_type,
        user_properties: will.user_properties,
        is_utf8_payload: will.is_utf8_payload.unwrap_or_default(),
        response_topic: will.response_topic,
        subscription_ids: Vec::new(),
    };
    Publish {
        dup: false,
        retain: will.retain,
        qos: will.qos,
        topic: will.topic,
        packet_id: None,
        payload: will.message,
        properties: Some(properties),
    }
}

fn is_secret(password: Option<&Bytes>) -> bool {
    password.is_some_and(|password| !password.is_empty())
}

/// Zero turns it off (MQTT 5 §3.1.2.10).
fn keep_alive(seconds: u16) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

fn asked_v3(filter: &str, qos: QoS) -> Asked {
    let wish = Wish {
        qos: qos.into(),
        no_local: false,
        retain_as_published: false,
        replay: Replay::Always,
    };
    Asked {
        filter: filter.to_owned(),
        wish,
        has_identifier: false,
    }
}

fn asked_v5(filter: &str, options: v5::SubscriptionOptions, has_identifier: bool) -> Asked {
    let wish = Wish {
        qos: options.qos.into(),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        replay: match options.retain_handling {
            RetainHandling::AtSubscribe => Replay::Always,
            RetainHandling::AtSubscribeNew => Replay::IfNew,
            RetainHandling::NoAtSubscribe => Replay::Never,
        },
    };
    Asked {
        filter: filter.to_owned(),
        wish,
        has_identifier,
    }
}

fn to_v3(packet: Outgoing) -> Option<v3::Packet> {
    Some(match packet {
        Outgoing::Connack { .. } => connack_v3(v3::ConnectAckReason::ConnectionAccepted),
        Outgoing::Refused(refusal) => connack_v3(match refusal {
            ConnectRefusal::NoSecret | ConnectRefusal::EnhancedAuthentication => {
                v3::ConnectAckReason::NotAuthorized
            }
            ConnectRefusal::BadClientId => v3::ConnectAckReason::IdentifierRejected,
        }),
        Outgoing::Publish { delivery, id } => v3::Packet::Publish(publish(delivery, id)),
        Outgoing::Puback(packet_id) => v3::Packet::PublishAck { packet_id },
        Outgoing::Pubrec(packet_id) => v3::Packet::PublishReceived { packet_id },
        Outgoing::Pubcomp { id, .. } => v3::Packet::PublishComplete { packet_id: id },
        Outgoing::Suback { id, grants } => v3::Packet::SubscribeAck {
            packet_id: id,
            status: grants.into_iter().map(grant_v3).collect(),
        },
        Outgoing::Unsuback { id, .. } => v3::Packet::UnsubscribeAck { packet_id: id },
        Outgoing::Pong => v3::Packet::PingResponse,
        Outgoing::Disconnect(_) => return None,
    })
}

fn to_v5(packet: Outgoing) -> v5::Packet {
    match packet {
        Outgoing::Connack { assigned_id } => connack_v5(assigned_id),
        Outgoing::Refused(refusal) => refused_v5(refusal),
        Outgoing::Publish { delivery, id } => v5::Packet::Publish(publish(delivery, id)),
        Outgoing::Puback(packet_id) => v5::Packet::PublishAck(v5::PublishAck {
            packet_id,
            ..Default::default()
        }),
        Outgoing::Pubrec(packet_id) => v5::Packet::PublishReceived(v5::PublishAck {
            packet_id,
            ..Default::default()
        }),
        Outgoing::Pubcomp { id, known } => pubcomp_v5(id, known),
        Outgoing::Suback { id, grants } => v5::Packet::SubscribeAck(v5::SubscribeAck {
            packet_id: id,
            properties: Vec::new(),
            reason_string: None,
            status: grants.into_iter().map(grant_v5).collect(),
        }),
        Outgoing::Unsuback { id, existed } => v5::Packet::UnsubscribeAck(v5::UnsubscribeAck {
            packet_id: id,
            properties: Vec::new(),
            reason_string: None,
            status: existed.into_iter().map(unsubscribed_v5).collect(),
        }),
        Outgoing::Pong => v5::Packet::PingResponse,
        Outgoing::Disconnect(reason) => v5::Packet::Disconnect(v5::Disconnect::new(reason)),
    }
}

fn publish(delivery: Delivery, id: Option<PacketId>) -> Box<Publish> {
    Box::new(Publish {
        dup: false,
        retain: delivery.retain,
        qos: delivery.qos.into(),
        topic: delivery.message.topic.as_str().into(),
        packet_id: id,
        payload: delivery.message.payload.clone(),
        properties: Some(delivery.message.properties.clone()),
    })
}

fn connack_v3(return_code: v3::ConnectAckReason) -> v3::Packet {
    v3::Packet::ConnectAck(v3::ConnectAck {
        return_code,
        session_present: false,
    })
}

fn connack_v5(assigned_id: Option<String>) -> v5::Packet {
    v5::Packet::from(v5::ConnectAck {
        session_expiry_interval_secs: Some(0),
        max_packet_size: Some(MAX_PACKET),
        assigned_client_id: assigned_id.map(Into::into),
        subscription_identifiers_available: false,
        shared_subscription_available: false,
        ..Default::default()
    })
}

fn refused_v5(refusal: ConnectRefusal) -> v5::Packet {
    let reason_code = match refusal {
        ConnectRefusal::NoSecret => v5::ConnectAckReason::NotAuthorized,
        ConnectRefusal::BadClientId => v5::ConnectAckReason::ClientIdentifierNotValid,
        ConnectRefusal::EnhancedAuthentication => v5::ConnectAckReason::BadAuthenticationMethod,
    };
    v5::Packet::from(v5::ConnectAck {
        reason_code,
        ..Default::default()
    })
}

fn pubcomp_v5(packet_id: PacketId, known: bool) -> v5::Packet {
    let reason_code = match known {
        true => v5::PublishAck2Reason::Success,
        false => v5::PublishAck2Reason::PacketIdNotFound,
    };
    v5::Packet::PublishComplete(v5::PublishAck2 {
        packet_id,
        reason_code,
        ..Default::default()
    })
}

fn grant_v3(grant: Grant) -> v3::SubscribeReturnCode {
    match grant {
        Grant::Granted(qos) => v3::SubscribeReturnCode::Success(qos.into()),
        Grant::InvalidFilter
        | Grant::NoSharedSubscriptions
        | Grant::NoIdentifiers
        | Grant::TooMany => v3::SubscribeReturnCode::Failure,
    }
}

fn grant_v5(grant: Grant) -> v5::SubscribeAckReason {
    match grant {
        Grant::Granted(Qos::AtMostOnce) => v5::SubscribeAckReason::GrantedQos0,
        Grant::Granted(Qos::AtLeastOnce) => v5::SubscribeAckReason::GrantedQos1,
        Grant::Granted(Qos::ExactlyOnce) => v5::SubscribeAckReason::GrantedQos2,
        Grant::InvalidFilter => v5::SubscribeAckReason::TopicFilterInvalid,
        Grant::NoSharedSubscriptions => v5::SubscribeAckReason::SharedSubscriptionNotSupported,
        Grant::NoIdentifiers => v5::SubscribeAckReason::SubscriptionIdentifiersNotSupported,
        Grant::TooMany => v5::SubscribeAckReason::QuotaExceeded,
    }
}

fn unsubscribed_v5(existed: bool) -> v5::UnsubscribeAckReason {
    match existed {
        true => v5::UnsubscribeAckReason::Success,
        false => v5::UnsubscribeAckReason::NoSubscriptionExisted,
    }
}

impl From<QoS> for Qos {
    fn from(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::AtMostOnce,
            QoS::AtLeastOnce => Self::AtLeastOnce,
            QoS::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}

impl From<Qos> for QoS {
    fn from(qos: Qos) -> Self {
        match qos {
            Qos::AtMostOnce => Self::AtMostOnce,
            Qos::AtLeastOnce => Self::AtLeastOnce,
            Qos::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}
