//! MQTT clients that send whatever a test tells them to: over TLS, over TCP, and inside WebSockets.

use std::io;
use std::net::SocketAddr;

use futures_util::{Sink, SinkExt, StreamExt};
use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::client::Refused;
use super::{Client, Identity, Lab, PATIENCE};

/// How MQTT travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tls,
    WebSocket,
}

pub const EVERY_TRANSPORT: [Transport; 2] = [Transport::Tls, Transport::WebSocket];

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V31,
    V311,
    V5,
}

pub const EVERY_VERSION: [Version; 3] = [Version::V31, Version::V311, Version::V5];

impl Version {
    /// The CONNACK of a broker that accepts.
    pub fn accepted(self) -> &'static [u8] {
        match self {
            Self::V31 | Self::V311 => &[0x20, 2, 0, 0],
            Self::V5 => &[0x20, 3, 0, 0, 0],
        }
    }

    /// The CONNACK that refuses with this return code of MQTT 3, or this reason code of MQTT 5.
    pub fn refused(self, code: u8, reason: u8) -> Vec<u8> {
        match self {
            Self::V31 | Self::V311 => vec![0x20, 2, 0, code],
            Self::V5 => vec![0x20, 3, 0, reason, 0],
        }
    }

    /// "Not authorised".
    pub fn not_authorized(self) -> Vec<u8> {
        self.refused(5, 0x87)
    }

    /// "Bad user name or password".
    pub fn bad_password(self) -> Vec<u8> {
        self.refused(4, 0x86)
    }
}

/// The fields of a CONNECT as they are to be written; no rule is kept that a test does not keep.
#[derive(Debug, Clone)]
pub struct Connect {
    pub first_byte: u8,
    pub name: &'static str,
    pub level: u8,
    /// Computed from the other fields where `None`.
    pub flags: Option<u8>,
    pub keep_alive: u16,
    pub properties: Vec<u8>,
    pub client_id: Vec<u8>,
    pub will: Option<Will>,
    pub user_name: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub trailing: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Will {
    pub flags: u8,
    pub properties: Vec<u8>,
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Will {
    pub fn new(payload: &[u8]) -> Self {
        Self {
            flags: 0,
            properties: Vec::new(),
            topic: b"m/d/c/ch".to_vec(),
            payload: payload.to_vec(),
        }
    }
}

impl Connect {
    /// A CONNECT without credentials.
    pub fn new(version: Version) -> Self {
        let (name, level) = match version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        Self {
            first_byte: 0x10,
            name,
            level,
            flags: None,
            keep_alive: 60,
            properties: Vec::new(),
            client_id: b"device".to_vec(),
            will: None,
            user_name: None,
            password: None,
            trailing: Vec::new(),
        }
    }

    /// One with a user name and this password.
    pub fn with_password(version: Version, password: impl Into<Vec<u8>>) -> Self {
        Self::with_user_name(version).password(password)
    }

    /// One with a user name and no password.
    pub fn with_user_name(version: Version) -> Self {
        let mut connect = Self::new(version);
        connect.user_name = Some(b"c9f0f895-fb98-4b91-99f5-1fd0297e236d".to_vec());
        connect
    }

    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = Some(password.into());
        self
    }

    pub fn client_id(mut self, client_id: impl Into<Vec<u8>>) -> Self {
        self.client_id = client_id.into();
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub fn properties(mut self, properties: &[u8]) -> Self {
        self.properties = properties.to_vec();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        packet(self.first_byte, &self.body())
    }

    fn body(&self) -> Vec<u8> {
        let mut body = field(self.name.as_bytes());
        body.extend([self.level, self.flags()]);
        body.extend(self.keep_alive.to_be_bytes());
        self.write_properties(&mut body, &self.properties);
        body.extend(field(&self.client_id));
        if let Some(will) = &self.will {
            self.write_properties(&mut body, &will.properties);
            body.extend(field(&will.topic));
            body.extend(field(&will.payload));
        }
        for text in [&self.user_name, &self.password].into_iter().flatten() {
            body.extend(field(text));
        }
        body.extend(&self.trailing);
        body
    }

    fn flags(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        self.flags.unwrap_or(
            0x02 | self.will.as_ref().map_or(0, |will| 0x04 | will.flags)
                | bit(self.password.is_some(), 0x40)
                | bit(self.user_name.is_some(), 0x80),
        )
    }

    fn write_properties(&self, body: &mut Vec<u8>, properties: &[u8]) {
        if self.level == 5 {
            body.extend(varint(properties.len()));
            body.extend(properties);
        }
    }
}

/// A packet of this first byte and body.
pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    [&[first_byte][..], &varint(body.len()), body].concat()
}

/// A PUBLISH of quality of service 0.
pub fn publish(version: Version, topic: &str, payload: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    packet(
        0x30,
        &[&field(topic.as_bytes()), properties, payload].concat(),
    )
}

/// A string or binary field with its length.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

/// The first packet of `bytes` once it is complete.
pub fn first_packet(bytes: &[u8]) -> Option<&[u8]> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes.get(..2 + at + length);
        }
    }
    None
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A WebSocket on whatever carries it.
trait Socket:
    Sink<Message, Error = Error> + futures_util::Stream<Item = Result<Message, Error>> + Unpin + Send
{
}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for WebSocketStream<S> {}

/// One client's connection.
pub struct Wire {
    line: Line,
    unread: Vec<u8>,
    close_code: Option<u16>,
}

enum Line {
    Stream(Box<dyn Stream>),
    WebSocket(Box<dyn Socket>),
}

impl Lab {
    /// An MQTT client with this certificate, or with none.
    pub async fn mqtt(&self, transport: Transport, identity: Option<Identity>) -> io::Result<Wire> {
        match transport {
            Transport::Tls => Wire::over_tls(&self.mqtts_client(identity), &["mqtt"]).await,
            Transport::WebSocket => Wire::over_websocket(&self.client(identity)).await,
        }
    }

    /// An MQTT client of the device with the usual secret.
    pub async fn mqtt_device(&self, transport: Transport) -> Wire {
        let device = self.authority.device(super::lab::SECRET);
        self.mqtt(transport, Some(device)).await.unwrap()
    }

    /// An MQTT client without a certificate.
    pub async fn mqtt_anonymous(&self, transport: Transport) -> Wire {
        self.mqtt(transport, None).await.unwrap()
    }

    /// A TLS client of the MQTTS listener.
    pub fn mqtts_client(&self, identity: Option<Identity>) -> Client {
        Client::new(self.address_of("mqtts"), self.authority.der(), identity)
    }
}

impl Wire {
    fn new(line: Line) -> Self {
        Self {
            line,
            unread: Vec::new(),
            close_code: None,
        }
    }

    pub async fn over_tls(client: &Client, alpn: &[&str]) -> io::Result<Self> {
        let stream = client.connect(alpn).await?;
        Ok(Self::new(Line::Stream(Box::new(stream))))
    }

    pub async fn over_tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(Line::Stream(Box::new(stream))))
    }

    pub async fn over_websocket(client: &Client) -> io::Result<Self> {
        let fields = [("sec-websocket-protocol", "mqtt")];
        match client.open_websocket("/mqtt", &fields).await {
            Ok((socket, _)) => Ok(Self::of_websocket(socket)),
            Err(Refused::Broken(error)) => Err(error),
            Err(Refused::Answered(answer)) => panic!("{answer:?}"),
        }
    }

    pub fn of_websocket<S>(socket: WebSocketStream<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::new(Line::WebSocket(Box::new(socket)))
    }

    /// Inside a WebSocket without TLS.
    pub async fn over_plain_websocket(address: SocketAddr) -> Self {
        let mut request = format!("ws://{address}/mqtt")
            .into_client_request()
            .unwrap();
        let subprotocol = HeaderValue::from_static("mqtt");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", subprotocol);
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let opened = tokio_tungstenite::client_async(request, stream).await;
        Self::of_websocket(opened.unwrap().0)
    }

    /// Sends bytes: in one write, or as one binary message. That the gateway has closed shows where
    /// its answer is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        match &mut self.line {
            Line::Stream(stream) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
            }
            Line::WebSocket(socket) => {
                let _ = socket.send(Message::binary(bytes.to_vec())).await;
            }
        }
    }

    /// Sends bytes in parts of `size`: in writes, or as messages, of their own.
    pub async fn send_in_parts(&mut self, bytes: &[u8], size: usize) {
        for part in bytes.chunks(size) {
            self.send(part).await;
        }
    }

    /// Sends bytes as one message in frames of `size`, with a Ping between each two; over TLS, in
    /// parts.
    pub async fn send_in_frames(&mut self, bytes: &[u8], size: usize) {
        let Line::WebSocket(socket) = &mut self.line else {
            return self.send_in_parts(bytes, size).await;
        };
        let count = bytes.len().div_ceil(size);
        for (at, part) in bytes.chunks(size).enumerate() {
            let data = if at == 0 {
                Data::Binary
            } else {
                Data::Continue
            };
            let header = FrameHeader {
                is_final: at + 1 == count,
                opcode: OpCode::Data(data),
                mask: Some([1, 2, 3, 4]),
                ..FrameHeader::default()
            };
            let frame = Frame::from_payload(header, part.to_vec().into());
            let _ = socket.feed(Message::Frame(frame)).await;
            let _ = socket.feed(Message::Ping("p".into())).await;
        }
        let _ = socket.flush().await;
    }

    /// Sends two parts one after the other: as messages, or as the frames of one.
    pub async fn send_in_two(&mut self, (first, last): (&[u8], &[u8]), one_message: bool) {
        let Line::WebSocket(socket) = &mut self.line else {
            self.send(first).await;
            return self.send(last).await;
        };
        let second = if one_message {
            Data::Continue
        } else {
            Data::Binary
        };
        for (part, data, is_final) in [(first, Data::Binary, !one_message), (last, second, true)] {
            let header = FrameHeader {
                is_final,
                opcode: OpCode::Data(data),
                mask: Some([1, 2, 3, 4]),
                ..FrameHeader::default()
            };
            let frame = Frame::from_payload(header, part.to_vec().into());
            let _ = socket.send(Message::Frame(frame)).await;
        }
    }

    /// The next packet; `None` at the end.
    pub async fn packet(&mut self) -> Option<Vec<u8>> {
        let reading = async {
            loop {
                if let Some(packet) = first_packet(&self.unread) {
                    let length = packet.len();
                    return Some(self.unread.drain(..length).collect());
                }
                if !self.read().await {
                    assert!(self.unread.is_empty(), "cut short: {:?}", self.unread);
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("nothing comes")
    }

    /// Waits until this many bytes have come, and gives them without taking them.
    pub async fn peek(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            let reading = tokio::time::timeout(PATIENCE, self.read()).await;
            assert!(reading.expect("nothing comes"), "the end");
        }
        self.unread.clone()
    }

    /// Waits for the end, and gives the code that a WebSocket is closed with; panics if a packet
    /// comes.
    pub async fn end(&mut self) -> Option<u16> {
        let packet = self.packet().await;
        assert_eq!(packet, None, "instead of the end");
        self.close_code
    }

    /// Panics if anything but this comes, or if it is not the end.
    pub async fn ends_with(&mut self, last: &[u8]) -> Option<u16> {
        assert_eq!(self.packet().await.as_deref(), Some(last));
        self.end().await
    }

    /// Ends the connection from the client's side, as a client does that is done.
    pub async fn close(&mut self) {
        match &mut self.line {
            Line::Stream(stream) => stream.shutdown().await.unwrap(),
            Line::WebSocket(socket) => socket.send(Message::Close(None)).await.unwrap(),
        }
    }

    async fn read(&mut self) -> bool {
        match &mut self.line {
            // A reset is an end as well.
            Line::Stream(stream) => matches!(stream.read_buf(&mut self.unread).await, Ok(1..)),
            Line::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    self.unread.extend_from_slice(&bytes);
                    true
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => true,
                Some(Ok(Message::Close(frame))) => {
                    self.close_code = frame.map(|frame| frame.code.into());
                    false
                }
                Some(Ok(other)) => panic!("{other:?} instead of bytes"),
                Some(Err(_)) | None => false,
            },
        }
    }
}
