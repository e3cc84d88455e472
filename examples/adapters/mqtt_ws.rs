//! MQTT over WebSocket (MQTT 5 §6): binary frames are one stream of bytes, in which packets may
//! be split or run together. Any path; the secret is in CONNECT, as over TCP.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use hyper::Request;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::bus::Source;
use crate::mqtt::Broker;
use crate::refusal::{Answer, Refusal};
use crate::server::serve_http;
use crate::upgrade::{Slot, Socket, Subprotocols, handshake};

const SUBPROTOCOLS: Subprotocols = Subprotocols::OneOf(&["mqtt", "mqttv3.1"]);

pub(crate) async fn serve(broker: Arc<Broker>, stream: TcpStream) {
    let slot = Slot::new();
    serve_http(stream, |request| handle(&slot, request)).await;
    if let Some((socket, ())) = slot.take().await {
        serve_socket(broker, socket).await;
    }
}

async fn handle(slot: &Slot<()>, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    let answer = handshake(&request, SUBPROTOCOLS)?;
    slot.grant(&mut request, ());
    Ok(answer)
}

async fn serve_socket(broker: Arc<Broker>, socket: Socket) {
    let (replies, frames) = socket.split();
    let bytes = frames.map(bytes_of).try_filter_map(future::ok);
    let replies = replies.with(|bytes: Bytes| future::ok(Frame::Binary(bytes)));
    let replies = pin!(replies.sink_map_err(to_io));
    let writer = SinkWriter::new(CopyToBytes::new(replies));
    broker
        .serve(Source::MqttWs, StreamReader::new(bytes), writer)
        .await;
}

/// `None` for the frames that carry no data. MQTT-6.0.0-1: text closes the connection.
fn bytes_of(frame: Result<Frame, tungstenite::Error>) -> io::Result<Option<Bytes>> {
    match frame.map_err(to_io)? {
        Frame::Binary(bytes) => Ok(Some(bytes)),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) | Frame::Frame(_) => Ok(None),
        Frame::Text(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn to_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
