//! The WebSocket adapter: a socket both publishes to its path's topic and hears what others
//! publish there. What it sends is not echoed back to it.
//! A socket that is too slow, or does not answer pings, is closed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::{Method, Request};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message as Frame, protocol::CloseFrame};

use crate::bus::{Bus, Delivery, Inbox, Message, Qos, Replay, Source, Wish};
use crate::credential::Presented;
use crate::http;
use crate::refusal::{Answer, Refusal};
use crate::server::serve_http;
use crate::topic::{Filter, Topic};
use crate::upgrade::{Slot, Socket, Subprotocols, handshake};

const PING_EVERY: Duration = Duration::from_secs(30);
const WRITE_LIMIT: Duration = Duration::from_secs(10);

const WISH: Wish = Wish {
    qos: Qos::AtMostOnce,
    no_local: true,
    retain_as_published: false,
    replay: Replay::Never,
};

pub(crate) async fn serve(bus: Arc<Bus>, stream: TcpStream) {
    let slot = Slot::new();
    serve_http(stream, |request| handle(&bus, &slot, request)).await;
    if let Some((socket, seat)) = slot.take().await {
        Conversation::new(&bus, socket, seat).run().await;
    }
}

/// Taken before the `101` goes out, so that a client who has seen it misses no message.
struct Seat {
    topic: Topic,
    inbox: Inbox,
}

impl Seat {
    fn at(bus: &Arc<Bus>, topic: Topic) -> Self {
        let inbox = bus.join();
        // A new inbox has room for its first filter.
        let _ = inbox.subscribe(Filter::exactly(&topic), WISH);
        Self { topic, inbox }
    }
}

async fn handle(
    bus: &Arc<Bus>,
    slot: &Slot<Seat>,
    mut request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    if request.uri().path() == "/health" {
        return http::health(request.method());
    }
    let topic = Topic::from_path(request.uri().path()).ok_or(Refusal::NoSuchPath)?;
    if request.method() != Method::GET {
        return Err(Refusal::MethodNotAllowed { allow: "GET" });
    }
    let _presented = Presented::in_headers(request.headers())?;
    let answer = handshake(&request, Subprotocols::Any)?;
    slot.grant(&mut request, Seat::at(bus, topic));
    Ok(answer)
}

struct Conversation<'a> {
    bus: &'a Bus,
    topic: Topic,
    inbox: Inbox,
    frames: SplitStream<Socket>,
    replies: SplitSink<Socket, Frame>,
    pings: Interval,
    heard: bool,
}

/// Why a conversation ends, as its close frame says it (RFC 6455 §7.4.1).
type End = CloseCode;

impl<'a> Conversation<'a> {
    fn new(bus: &'a Bus, socket: Socket, Seat { topic, inbox }: Seat) -> Self {
        let (replies, frames) = socket.split();
        let pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        Self {
            bus,
            topic,
            inbox,
            frames,
            replies,
            pings,
            heard: true,
        }
    }

    async fn run(mut self) {
        let Err(code) = self.relay().await;
        let close = CloseFrame {
            code,
            reason: "".into(),
        };
        let _ = self.send(Frame::Close(Some(close))).await;
    }

    async fn relay(&mut self) -> Result<Infallible, End> {
        let cut_off = self.inbox.cut_off();
        loop {
            tokio::select! {
                frame = self.frames.next() => self.hear(frame)?,
                delivery = self.inbox.next() => self.deliver(delivery).await?,
                _ = self.pings.tick() => self.ping().await?,
                () = cut_off.cancelled() => return Err(CloseCode::Again),
            }
        }
    }

    fn hear(&mut self, frame: Option<Result<Frame, tungstenite::Error>>) -> Result<(), End> {
        self.heard = true;
        let payload = match frame {
            Some(Ok(Frame::Binary(payload))) => payload,
            Some(Ok(Frame::Text(text))) => text.into(),
            // tungstenite answers pings and closes itself; after a close the stream ends.
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) | Frame::Frame(_))) => {
                return Ok(());
            }
            None => return Err(CloseCode::Normal),
            Some(Err(tungstenite::Error::Capacity(_))) => return Err(CloseCode::Size),
            Some(Err(_)) => return Err(CloseCode::Protocol),
        };
        let message = Message::new(self.topic.clone(), payload, Qos::AtMostOnce);
        self.bus.publish(Source::Ws, Some(self.inbox.id()), message);
        Ok(())
    }

    async fn deliver(&mut self, delivery: Option<Delivery>) -> Result<(), End> {
        let delivery = delivery.ok_or(CloseCode::Again)?;
        self.send(Frame::Binary(delivery.message.payload.clone()))
            .await
    }

    async fn ping(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.heard) {
            return Err(CloseCode::Away);
        }
        self.send(Frame::Ping(bytes::Bytes::new())).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), End> {
        let sent = timeout(WRITE_LIMIT, self.replies.send(frame)).await;
        sent.map_err(|_| CloseCode::Again)?
            .map_err(|_| CloseCode::Away)
    }
}
