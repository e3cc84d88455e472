//! One connected MQTT client: its publishes go to the bus, its subscriptions come from it.
//! QoS 2 is taken in full (PUBREC, PUBREL, PUBCOMP); deliveries are at QoS 0 or 1. At most
//! `window` deliveries wait for their PUBACK; the rest wait in the bus, which cuts off a client
//! that lets too many wait.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::pending;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::{DisconnectReasonCode as Reason, ToReasonCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Delivery, Inbox, Message, Qos, Source};
use crate::mqtt_codec::{Asked, Encoded, Grant, Incoming, Outgoing, PacketId};
use crate::mqtt_link::{Link, Lost};
use crate::topic::{Filter, Topic};

const MAX_WINDOW: usize = 256;

pub(crate) struct Session<'a, R, W> {
    bus: &'a Bus,
    source: Source,
    link: &'a mut Link<R, W>,
    inbox: Inbox,
    keep_alive: Option<Duration>,
    window: usize,
    last_id: u16,
    /// Delivered at QoS 1 and not yet acknowledged.
    unacknowledged: HashSet<PacketId>,
    /// Received at QoS 2 and not yet released.
    unreleased: HashSet<PacketId>,
}

/// Why a session ends.
enum End {
    /// The client said goodbye; its will is void.
    Goodbye,
    /// The connection is gone.
    Lost,
    /// The broker ends it, and tells a client that can understand why.
    Broken(Reason),
}

impl From<Lost> for End {
    fn from(Lost: Lost) -> Self {
        Self::Lost
    }
}

impl<'a, R, W> Session<'a, R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    pub(crate) fn new(bus: &'a Arc<Bus>, source: Source, link: &'a mut Link<R, W>) -> Self {
        Self {
            bus,
            source,
            link,
            inbox: bus.join(),
            keep_alive: None,
            window: MAX_WINDOW,
            last_id: 0,
            unacknowledged: HashSet::new(),
            unreleased: HashSet::new(),
        }
    }

    /// What the client asked of its session in CONNECT.
    pub(crate) fn expect(
        &mut self,
        keep_alive: Option<Duration>,
        receive_maximum: Option<NonZeroU16>,
    ) {
        self.keep_alive = keep_alive;
        let receive_maximum = receive_maximum.map_or(MAX_WINDOW, |most| most.get().into());
        self.window = receive_maximum.min(MAX_WINDOW);
    }

    /// Serves the client until it leaves, is lost, misbehaves or is taken over.
    pub(crate) async fn run(mut self, will: Option<Message>, taken_over: CancellationToken) {
        let Err(end) = self.relay(&taken_over).await;
        if let End::Broken(reason) = end {
            let _ = self.link.send(Outgoing::Disconnect(reason)).await;
        }
        if let (Some(will), End::Lost | End::Broken(_)) = (will, end) {
            self.bus.publish(self.source, None, will);
        }
    }

    async fn relay(&mut self, taken_over: &CancellationToken) -> Result<Infallible, End> {
        let cut_off = self.inbox.cut_off();
        let mut deadline = self.deadline();
        loop {
            let has_room = self.unacknowledged.len() < self.window;
            tokio::select! {
                packet = self.link.next() => {
                    deadline = self.deadline();
                    self.receive(packet).await?;
                }
                delivery = self.inbox.next(), if has_room => self.deliver(delivery).await?,
                () = cut_off.cancelled() => return Err(End::Broken(Reason::QuotaExceeded)),
                () = taken_over.cancelled() => return Err(End::Broken(Reason::SessionTakenOver)),
                () = reached(deadline) => return Err(End::Broken(Reason::KeepAliveTimeout)),
            }
        }
    }

    /// MQTT-3.1.2-22: one and a half times the keep-alive.
    fn deadline(&self) -> Option<Instant> {
        self.keep_alive
            .map(|keep_alive| Instant::now() + keep_alive * 3 / 2)
    }

    async fn receive(&mut self, packet: Option<Result<Incoming, DecodeError>>) -> Result<(), End> {
        let packet = packet.ok_or(End::Lost)?;
        match packet.map_err(|error| End::Broken(error.to_reason_code()))? {
            Incoming::Publish(publish) => self.publish(*publish).await,
            Incoming::Puback(id) => {
                self.unacknowledged.remove(&id);
                Ok(())
            }
            Incoming::Pubrel(id) => {
                let known = self.unreleased.remove(&id);
                self.answer(Outgoing::Pubcomp { id, known }).await
            }
            Incoming::Subscribe { id, asked } => {
                let grants = asked
                    .into_iter()
                    .map(|asked| self.subscribe(asked))
                    .collect();
                self.answer(Outgoing::Suback { id, grants }).await
            }
            Incoming::Unsubscribe { id, filters } => {
                let existed = filters
                    .iter()
                    .map(|filter| self.unsubscribe(filter))
                    .collect();
                self.answer(Outgoing::Unsuback { id, existed }).await
            }
            Incoming::Ping => self.answer(Outgoing::Pong).await,
            Incoming::Disconnect { discard_will: true } => Err(End::Goodbye),
            Incoming::Disconnect {
                discard_will: false,
            } => Err(End::Lost),
            Incoming::Connect(_) | Incoming::Unexpected => Err(End::Broken(Reason::ProtocolError)),
        }
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), End> {
        let (qos, id) = (Qos::from(publish.qos), publish.packet_id);
        let message = message(publish).map_err(End::Broken)?;
        // MQTT-4.3.3-10: until its PUBREL, a QoS 2 packet id means the same message again.
        let repeated = match id {
            Some(id) if qos == Qos::ExactlyOnce => !self.unreleased.insert(id),
            Some(_) | None => false,
        };
        if !repeated {
            self.bus
                .publish(self.source, Some(self.inbox.id()), message);
        }
        match (qos, id) {
            (Qos::AtLeastOnce, Some(id)) => self.answer(Outgoing::Puback(id)).await,
            (Qos::ExactlyOnce, Some(id)) => self.answer(Outgoing::Pubrec(id)).await,
            (_, _) => Ok(()),
        }
    }

    fn subscribe(&self, asked: Asked) -> Grant {
        if asked.has_identifier {
            return Grant::NoIdentifiers;
        }
        if asked.filter.starts_with("$share/") {
            return Grant::NoSharedSubscriptions;
        }
        let Some(filter) = Filter::parse(&asked.filter) else {
            return Grant::InvalidFilter;
        };
        match self.inbox.subscribe(filter, asked.wish) {
            Ok(()) => Grant::Granted(asked.wish.qos.min(Qos::AtLeastOnce)),
            Err(_) => Grant::TooMany,
        }
    }

    fn unsubscribe(&self, filter: &str) -> bool {
        Filter::parse(filter).is_some_and(|filter| self.inbox.unsubscribe(&filter))
    }

    async fn deliver(&mut self, delivery: Option<Delivery>) -> Result<(), End> {
        let delivery = delivery.ok_or(End::Broken(Reason::QuotaExceeded))?;
        let id = (delivery.qos == Qos::AtLeastOnce).then(|| self.free_id());
        let sent = self.link.send(Outgoing::Publish { delivery, id }).await?;
        if let (Some(id), Encoded::Yes) = (id, sent) {
            self.unacknowledged.insert(id);
        }
        Ok(())
    }

    /// Ends, because the window is far smaller than the number of ids.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = PacketId::new(self.last_id);
            if let Some(id) = id.filter(|id| !self.unacknowledged.contains(id)) {
                return id;
            }
        }
    }

    /// A client that has no room even for an answer cannot be served.
    async fn answer(&mut self, packet: Outgoing) -> Result<(), End> {
        match self.link.send(packet).await? {
            Encoded::Yes => Ok(()),
            Encoded::Discarded => Err(End::Lost),
        }
    }
}

/// The message a will stands for.
pub(crate) fn will(will: Publish) -> Result<Message, Reason> {
    message(will)
}

fn message(publish: Publish) -> Result<Message, Reason> {
    let properties = publish.properties.unwrap_or_default();
    // The broker announced a topic alias maximum of 0 (MQTT-3.3.2-9).
    if properties.topic_alias.is_some() {
        return Err(Reason::TopicAliasInvalid);
    }
    // Only a server may send these (MQTT-3.3.4-6).
    if !properties.subscription_ids.is_empty() {
        return Err(Reason::ProtocolError);
    }
    Ok(Message {
        topic: Topic::parse(&publish.topic).ok_or(Reason::TopicNameInvalid)?,
        payload: publish.payload,
        qos: publish.qos.into(),
        retain: publish.retain,
        properties,
    })
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
