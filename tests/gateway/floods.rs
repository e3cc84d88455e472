//! Clients that send much, cheaply: HTTP/2 frames, fields and TLS messages without end (S45, S46, S48). Each
//! is sent away, or costs no more than it is allowed to, and the next client is served.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, head,
};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, Version, Wire, field, publish};
use crate::harness::origin::Received;
use crate::harness::{Broker, Lab, PATIENCE, Site, openssl};

/// Sends frames and reads until one of `kind` comes.
async fn until_frame(lab: &Lab, frames: Frames, kind: u8) -> Frame {
    let stream = lab.device().connect(&["h2"]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    // The gateway may have closed before it has read all of it.
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&frames.0).await;
        let _ = writer.flush().await;
        writer
    });
    let reading = async {
        loop {
            let frame = Frame::read(&mut reader).await.expect("the end");
            if frame.kind == kind {
                return frame;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("no such frame");
    drop(writing.await);
    found
}

/// Panics unless the gateway ends the connection with an error, and serves the next.
async fn assert_sent_away(lab: &Lab, frames: Frames) {
    assert_ne!(until_frame(lab, frames, GOAWAY).await.code(), 0);
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_request_by_hand_is_answered() {
    let lab = Lab::x509().await;
    let frames = Frames::new().add(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &head("GET", "/http/m"),
    );
    let answer = until_frame(&lab, frames, DATA).await;
    assert_eq!((answer.stream, answer.payload), (1, b"ok".to_vec()));
}

#[tokio::test]
async fn a_client_that_ignores_the_limit_on_streams_is_refused() {
    const REFUSED_STREAM: u32 = 7;
    let lab = Config::x509().limits("streams = 2").start().await;
    let mut frames = Frames::new();
    for stream in [1, 3, 5] {
        let flags = END_HEADERS | END_STREAM;
        frames = frames.add(HEADERS, flags, stream, &head("GET", "/http/silent"));
    }
    let refusal = until_frame(&lab, frames, RST_STREAM).await;
    assert_eq!((refusal.stream, refusal.code()), (5, REFUSED_STREAM));
}

#[tokio::test]
async fn a_client_that_opens_and_resets_streams_without_end_is_sent_away() {
    let lab = Lab::x509().await;
    let mut frames = Frames::new();
    for number in 0..2000 {
        let stream = number * 2 + 1;
        frames = frames
            .add(
                HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                &head("GET", "/http/silent"),
            )
            .add(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    }
    assert_sent_away(&lab, frames).await;
    assert!(lab.origin.requests().len() < 1000);
}

#[tokio::test]
async fn a_head_continued_without_end_is_refused() {
    let lab = Lab::x509().await;
    let mut frames = Frames::new().add(HEADERS, END_STREAM, 1, &head("GET", "/http/m"));
    for _ in 0..2000 {
        // A field of one letter and 100 bytes.
        let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
        frames = frames.add(CONTINUATION, 0, 1, &field.repeat(10));
    }
    assert_ne!(until_frame(&lab, frames, GOAWAY).await.code(), 0);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_head_continued_by_nothing_without_end_is_refused() {
    let lab = Lab::x509().await;
    let mut frames = Frames::new().add(HEADERS, END_STREAM, 1, &head("GET", "/http/m"));
    for _ in 0..100_000 {
        frames = frames.add(CONTINUATION, 0, 1, &[]);
    }
    assert_ne!(until_frame(&lab, frames, GOAWAY).await.code(), 0);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_body_of_empty_frames_without_end_is_refused() {
    let lab = Lab::x509().await;
    let mut frames = Frames::new().add(HEADERS, END_HEADERS, 1, &head("POST", "/http/m"));
    for _ in 0..100_000 {
        frames = frames.add(DATA, 0, 1, &[]);
    }
    assert_sent_away(&lab, frames).await;
}

#[tokio::test]
async fn a_client_that_has_its_streams_reset_without_end_is_sent_away() {
    let lab = Lab::x509().await;
    let mut frames = Frames::new();
    for number in 0..2000 {
        let stream = number * 2 + 1;
        let flags = END_HEADERS | END_STREAM;
        frames = frames
            .add(HEADERS, flags, stream, &head("GET", "/http/silent"))
            // An increment of zero: the gateway, not the client, has to reset the stream.
            .add(WINDOW_UPDATE, 0, stream, &[0; 4]);
    }
    assert_sent_away(&lab, frames).await;
    assert!(lab.origin.requests().len() < 1000);
}

/// HPACK (RFC 7541 §6.2.1, §6.1): a field that is entered into the table, and named from then on by one
/// byte each.
fn repeated_field(value: &[u8], times: usize) -> Vec<u8> {
    assert!((127..254).contains(&value.len()));
    let length = [0x7f, u8::try_from(value.len() - 127).unwrap()];
    let entry = [&[0x40, 1, b'x'], &length[..], value].concat();
    [entry, vec![0xbe; times]].concat()
}

#[tokio::test]
async fn fields_of_one_byte_each_count_as_what_they_stand_for() {
    let lab = Lab::x509().await;
    for (times, served) in [(50, true), (200, false), (60_000, false)] {
        let fields = [head("GET", "/http/m"), repeated_field(&[b'v'; 200], times)].concat();
        let mut frames = Frames::new().add(HEADERS, END_STREAM, 1, &[]);
        for part in fields.chunks(16_000) {
            frames = frames.add(CONTINUATION, 0, 1, part);
        }
        let frames = frames.add(CONTINUATION, END_HEADERS, 1, &[]);
        let stream = lab.device().connect(&["h2"]).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        writer.write_all(&frames.0).await.unwrap();
        writer.flush().await.unwrap();
        let answered = loop {
            match Frame::read(&mut reader).await {
                // RFC 7541 Appendix A: `:status: 200`.
                Some(frame) if frame.kind == HEADERS => break frame.payload[0] == 0x88,
                Some(frame) if matches!(frame.kind, RST_STREAM | GOAWAY) => break false,
                Some(_) => {}
                None => break false,
            }
        };
        assert_eq!(answered, served, "{times}");
    }
    assert_eq!(lab.origin.requests().len(), 1);
}

/// What a flood may cost at most, in KiB. The floods below send many times as much.
const BUDGET: u64 = 24 * 1024;

/// Sends `frames` to a gateway without reading anything of what it says, until it takes no more and has
/// passed `requests` on; panics if that costs it more than `BUDGET`, or another client its answer.
async fn assert_bounded(frames: Frames, requests: usize) {
    let site = Site::new().await;
    site.configure("", "");
    let gateway = site.run(&[]).await;
    let device = gateway.device();
    assert_eq!(device.get("/http/m").await.unwrap().status, 200);
    let before = gateway.process.memory().await;
    let mut stream = device.connect(&["h2"]).await.unwrap();
    let sending = stream.write_all(&frames.0);
    // That it takes no more is as good as that it takes all.
    let _ = tokio::time::timeout(Duration::from_secs(2), sending).await;
    let passed_on = async {
        let large = |received: &Received| received.target.starts_with("/bytes/");
        while site.origin.requests().iter().filter(|r| large(r)).count() < requests {
            assert_eq!(device.get("/http/m").await.unwrap().status, 200);
        }
    };
    tokio::time::timeout(PATIENCE, passed_on).await.unwrap();
    assert_eq!(device.get("/http/m").await.unwrap().status, 200);
    let after = gateway.process.memory().await;
    assert!(after < before + BUDGET, "{before} KiB, then {after} KiB");
    drop(stream);
}

#[tokio::test]
async fn pings_whose_answers_nobody_reads_do_not_pile_up() {
    let ping = Frames(Vec::new()).add(PING, 0, 0, &[7; 8]).0;
    let mut frames = Frames::new();
    frames.0.extend(ping.repeat(4_000_000));
    assert_bounded(frames, 0).await;
}

#[tokio::test]
async fn settings_whose_acknowledgements_nobody_reads_do_not_pile_up() {
    let settings = Frames(Vec::new()).add(SETTINGS, 0, 0, &[]).0;
    let mut frames = Frames::new();
    frames.0.extend(settings.repeat(8_000_000));
    assert_bounded(frames, 0).await;
}

#[tokio::test]
async fn requests_whose_answers_nobody_reads_hold_no_more_than_their_limits() {
    /// RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE, of zero.
    const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];
    let fields = [
        head("GET", "/http/bytes/100000000"),
        repeated_field(&[b'v'; 250], 90),
    ]
    .concat();
    let mut frames = Frames::with_settings(&NO_WINDOW);
    for number in 0..100 {
        let flags = END_HEADERS | END_STREAM;
        frames = frames.add(HEADERS, flags, number * 2 + 1, &fields);
    }
    assert_bounded(frames, 100).await;
}

/// A broker that takes a CONNECT and reads nothing else until it is told to; how much it got then.
async fn read_late(listener: TcpListener, connect: usize, may_read: oneshot::Receiver<()>) -> u64 {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut vec![0; connect]).await.unwrap();
    stream.write_all(Version::V311.accepted()).await.unwrap();
    may_read.await.unwrap();
    tokio::io::copy(&mut stream, &mut tokio::io::sink())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_broker_that_does_not_read_holds_its_publisher_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site::new().await;
    site.configure(
        "",
        &format!(
            "[upstreams.broker]\nservers = [\"{address}\"]\n\
             [routes.mqtt]\npath = \"/mqtt\"\nprotocol = \"mqtt\"\nupstream = \"broker\"\n"
        ),
    );
    let gateway = site.run(&[]).await;
    let connect = Connect::with_password(Version::V311, SECRET).bytes();
    let (read, may_read) = oneshot::channel();
    let broker = tokio::spawn(read_late(listener, connect.len(), may_read));
    let mut wire = Wire::over_websocket(&gateway.device()).await.unwrap();
    wire.send(&connect).await;
    assert_eq!(
        wire.packet().await.as_deref(),
        Some(Version::V311.accepted())
    );
    let before = gateway.process.memory().await;
    let message = publish(Version::V311, "t", &[b'x'; 1 << 20]);
    // More than the system's buffers hold, and many times what the gateway may.
    let sending = tokio::spawn(async move {
        for _ in 0..256 {
            wire.send(&message).await;
        }
        wire.close().await;
        message.len() as u64 * 256
    });
    for _ in 0..200 {
        assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
    }
    let after = gateway.process.memory().await;
    assert!(after < before + BUDGET, "{before} KiB, then {after} KiB");
    read.send(()).unwrap();
    assert_eq!(broker.await.unwrap(), sending.await.unwrap());
}

#[tokio::test]
async fn a_session_holds_nothing_of_its_connect() {
    let broker = Broker::start().await;
    let site = Site::new().await;
    site.configure(
        "auth = \"key\"",
        &format!(
            "[mqtt]\nmax_connect = \"2MiB\"\n[upstreams.broker]\nservers = [\"{}\"]\n\
             [listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtt\"\nupstream = \"broker\"\n",
            broker.address
        ),
    );
    let gateway = site.run(&[]).await;
    let property = [&[0x26, 0, 1, b'k'][..], &field(&[b'v'; 65_000])].concat();
    let connect = Connect::with_password(Version::V5, SECRET).properties(&property.repeat(16));
    let (connect, address) = (connect.bytes(), gateway.address_of("plain"));
    let before = gateway.process.memory().await;
    let mut sessions = Vec::new();
    for _ in 0..60 {
        let mut wire = Wire::over_tcp(address).await.unwrap();
        wire.send(&connect).await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        sessions.push(wire);
    }
    let after = gateway.process.memory().await;
    assert!(after < before + BUDGET, "{before} KiB, then {after} KiB");
}

#[tokio::test]
async fn key_updates_without_end_cost_nobody_else_anything() {
    let site = Site::new().await;
    site.configure("", "");
    let gateway = site.run(&[]).await;
    let mut stream = gateway.device().connect(&["http/1.1"]).await.unwrap();
    let before = gateway.process.memory().await;
    for _ in 0..20_000 {
        // The update, and a byte to carry it (RFC 8446 §4.6.3).
        if stream.get_mut().1.refresh_traffic_keys().is_err()
            || stream.write_all(b"\n").await.is_err()
        {
            break;
        }
    }
    let _ = stream.flush().await;
    assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
    let after = gateway.process.memory().await;
    assert!(after < before + BUDGET, "{before} KiB, then {after} KiB");
}

#[tokio::test]
async fn a_client_that_wants_another_handshake_gets_none() {
    let lab = Config::x509().tls("min_version = \"1.2\"").start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let device = lab.authority.device(SECRET);
    std::fs::write(folder.path().join("leaf.crt"), &device.chain_pem).unwrap();
    std::fs::write(folder.path().join("leaf.key"), &device.key_pem).unwrap();
    // `R` on a line of its own asks for a renegotiation (RFC 5746).
    for _ in 0..3 {
        let said = openssl::say(&lab, folder.path(), "-tls1_2", b"R\n").await;
        assert!(said.contains("RENEGOTIATING"), "{said}");
        assert!(said.contains("no renegotiation"), "{said}");
    }
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_hello_without_end_is_refused() {
    let lab = Lab::x509().await;
    let mut stream = TcpStream::connect(lab.address()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let writing = async {
        // A handshake message of 16 MiB, the largest there is, in records of 16 KiB.
        let mut content = vec![1, 0xff, 0xff, 0xff];
        content.resize(16_384, 0);
        for _ in 0..1024 {
            let record = [&[0x16, 3, 1, 0x40, 0][..], &content].concat();
            if writer.write_all(&record).await.is_err() {
                return;
            }
            content.fill(0);
        }
        panic!("16 MiB were taken");
    };
    let reading = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        // A fatal alert, if anything.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:x?}");
    };
    let both = async { tokio::join!(writing, reading) };
    tokio::time::timeout(PATIENCE, both)
        .await
        .expect("it is waited for");
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}
