//! The message bus between the adapters: who listens to what, and the retained messages.
//! Everything is bounded. A subscriber whose queue is full is cut off, never waited for, so that
//! a slow one cannot hold back a publisher; the others lose nothing.
//! It knows no sockets and no protocol.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rmqtt_codec::v5::PublishProperties;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::topic::{Filter, Topic};

/// The largest message that any adapter takes.
pub(crate) const MAX_MESSAGE: usize = 5 * 1024 * 1024;

const QUEUE_MESSAGES: usize = 1024;
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
const MAX_FILTERS: usize = 256;
const MAX_RETAINED: usize = 512;
const MAX_RETAINED_BYTES: usize = 16 * 1024 * 1024;

/// Delivery promise of a message or of a subscription, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::enum_variant_names, reason = "the names of MQTT 5 §4.3")]
pub(crate) enum Qos {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// What MQTT 5 says about the payload; empty for the other publishers.
    pub(crate) properties: PublishProperties,
}

impl Message {
    pub(crate) fn new(topic: Topic, payload: Bytes, qos: Qos) -> Self {
        Self {
            topic,
            payload,
            qos,
            retain: false,
            properties: PublishProperties::default(),
        }
    }

    /// Bytes held while the message waits; close enough to bound memory by.
    fn size(&self) -> usize {
        let pairs = self.properties.user_properties.iter();
        let pairs: usize = pairs
            .map(|(name, value)| name.len() + value.len() + 64)
            .sum();
        let correlation = self
            .properties
            .correlation_data
            .as_ref()
            .map_or(0, Bytes::len);
        self.topic.as_str().len() + self.payload.len() + pairs + correlation
    }
}

/// The adapter a message came in by; for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Http,
    Ws,
    Mqtt,
    MqttWs,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Ws => "ws",
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
        })
    }
}

/// How a subscription wants its messages (MQTT 5 §3.8.3.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) qos: Qos,
    /// Keep the subscriber's own messages from it.
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) replay: Replay,
}

/// When a subscription is first sent the retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    Always,
    IfNew,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyFilters;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SubscriberId(u64);

/// One message for one subscriber.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
pub(crate) struct Bus {
    state: Mutex<State>,
}

impl Bus {
    /// Hands the message to every subscriber that asked for it, and cuts off those too slow.
    pub(crate) fn publish(&self, source: Source, sender: Option<SubscriberId>, message: Message) {
        let size = message.payload.len();
        log(format_args!("{source} {} {size} bytes", message.topic));
        let message = Arc::new(message);
        let mut state = self.lock();
        state.retain(&message);
        state
            .subscribers
            .retain(|id, subscriber| subscriber.offer(&message, sender == Some(*id)));
    }

    /// A new subscriber, that has asked for nothing yet.
    pub(crate) fn join(self: &Arc<Self>) -> Inbox {
        let (queue, deliveries) = mpsc::channel(QUEUE_MESSAGES);
        let cut_off = CancellationToken::new();
        let mut state = self.lock();
        state.last_id += 1;
        let id = SubscriberId(state.last_id);
        let subscriber = Subscriber::new(queue, cut_off.clone());
        state.subscribers.insert(id, subscriber);
        Inbox {
            id,
            bus: Arc::clone(self),
            deliveries,
            cut_off,
        }
    }

    // A panic cannot leave the maps half-changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    last_id: u64,
    subscribers: HashMap<SubscriberId, Subscriber>,
    retained: BTreeMap<Topic, Arc<Message>>,
}

impl State {
    /// MQTT 5 §3.3.1.3: the last retained message of a topic stays; an empty one clears it.
    fn retain(&mut self, message: &Arc<Message>) {
        if !message.retain {
            return;
        }
        self.retained.remove(&message.topic);
        if message.payload.is_empty() {
            return;
        }
        let held: usize = self.retained.values().map(|message| message.size()).sum();
        if self.retained.len() < MAX_RETAINED && held + message.size() <= MAX_RETAINED_BYTES {
            self.retained
                .insert(message.topic.clone(), Arc::clone(message));
        } else {
            log(format_args!("{} not retained: no room", message.topic));
        }
    }
}

struct Subscriber {
    filters: HashMap<Filter, Wish>,
    queue: mpsc::Sender<Delivery>,
    room: Arc<Semaphore>,
    cut_off: CancellationToken,
}

impl Subscriber {
    fn new(queue: mpsc::Sender<Delivery>, cut_off: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        Self {
            filters: HashMap::new(),
            queue,
            room,
            cut_off,
        }
    }

    /// False if the subscriber is too slow and must go.
    fn offer(&self, message: &Arc<Message>, own: bool) -> bool {
        let Some(wish) = self.best_wish(&message.topic, own) else {
            return true;
        };
        let retain = message.retain && wish.retain_as_published;
        self.enqueue(message, wish.qos, retain)
    }

    /// Overlapping subscriptions get one copy, at the best of their promises (MQTT-3.3.4-2).
    fn best_wish(&self, topic: &Topic, own: bool) -> Option<&Wish> {
        let matching = self
            .filters
            .iter()
            .filter(|(filter, _)| filter.matches(topic));
        let allowed = matching.filter(|(_, wish)| !(own && wish.no_local));
        allowed.map(|(_, wish)| wish).max_by_key(|wish| wish.qos)
    }

    fn enqueue(&self, message: &Arc<Message>, wanted: Qos, retain: bool) -> bool {
        let queued = self.reserve(message).and_then(|room| {
            let qos = wanted.min(message.qos).min(Qos::AtLeastOnce);
            let message = Arc::clone(message);
            self.queue
                .try_send(Delivery {
                    message,
                    qos,
                    retain,
                    _room: room,
                })
                .ok()
        });
        if queued.is_none() {
            self.cut_off.cancel();
        }
        queued.is_some()
    }

    fn reserve(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let size = u32::try_from(message.size()).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(size).ok()
    }
}

/// A subscriber's own end. Dropping it ends all its subscriptions.
pub(crate) struct Inbox {
    id: SubscriberId,
    bus: Arc<Bus>,
    deliveries: mpsc::Receiver<Delivery>,
    cut_off: CancellationToken,
}

impl Inbox {
    pub(crate) fn id(&self) -> SubscriberId {
        self.id
    }

    /// The next message; `None` once this subscriber was too slow and is cut off.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// Cancelled once this subscriber was too slow.
    pub(crate) fn cut_off(&self) -> CancellationToken {
        self.cut_off.clone()
    }

    /// Adds a filter, or changes its wish; the retained messages come as the wish says.
    pub(crate) fn subscribe(&self, filter: Filter, wish: Wish) -> Result<(), TooManyFilters> {
        let mut state = self.bus.lock();
        let State {
            subscribers,
            retained,
            ..
        } = &mut *state;
        let Some(subscriber) = subscribers.get_mut(&self.id) else {
            return Ok(());
        };
        let is_new = !subscriber.filters.contains_key(&filter);
        if is_new && subscriber.filters.len() == MAX_FILTERS {
            return Err(TooManyFilters);
        }
        subscriber.filters.insert(filter.clone(), wish);
        if wish.replay == Replay::Always || (wish.replay == Replay::IfNew && is_new) {
            let mut waiting = retained
                .values()
                .filter(|message| filter.matches(&message.topic));
            let kept_up = waiting.all(|message| subscriber.enqueue(message, wish.qos, true));
            if !kept_up {
                subscribers.remove(&self.id);
            }
        }
        Ok(())
    }

    /// False if there was no such subscription.
    pub(crate) fn unsubscribe(&self, filter: &Filter) -> bool {
        let mut state = self.bus.lock();
        let subscriber = state.subscribers.get_mut(&self.id);
        subscriber.is_some_and(|subscriber| subscriber.filters.remove(filter).is_some())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.bus.lock().subscribers.remove(&self.id);
    }
}

/// One line on stderr. A closed stderr is no reason to stop.
fn log(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
