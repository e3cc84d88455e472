//! CONNECT as devices and attackers send it. The tables name the vectors of the deployment that
//! Portcullis replaces: what its parser let through is refused here, and the other way round.

use bytes::BytesMut;
use mqttbytes::v4;
use mqttbytes::v5;

use super::connect::{Connect, Limits, Progress, QualityOfService, Version};
use super::fault::{ConnectError, Fault};
use super::packet::PacketType;
use super::property::{Property, PropertyId, Value};
use super::rewrite::{Changes, RewriteError};
use super::samples::{A, B, Random, Sample, SampleWill, USER, pair, property, string};
use super::scanner::{PacketScanner, ScanFault};

fn read(bytes: &[u8]) -> Result<Progress<Connect<'_>>, ConnectError> {
    Connect::read(bytes, &Limits::default())
}

fn complete(bytes: &[u8]) -> Connect<'_> {
    match read(bytes) {
        Ok(Progress::Complete(connect)) => connect,
        other => panic!("{other:?} for {bytes:x?}"),
    }
}

fn fault(bytes: &[u8]) -> Fault {
    read(bytes).expect_err("a packet that is refused").fault
}

/// Every cut says "more" or the same as the whole, and what follows the packet changes nothing.
fn assert_cuts_agree(bytes: &[u8], limits: &Limits) {
    let whole = Connect::read(bytes, limits);
    let size = match &whole {
        Ok(Progress::Complete(connect)) => connect.as_bytes().len(),
        _ => bytes.len(),
    };
    for cut in 0..=bytes.len() {
        match (Connect::read(&bytes[..cut], limits), &whole) {
            (Ok(Progress::NeedMore), Ok(Progress::Complete(_))) => assert!(cut < size),
            (Ok(Progress::NeedMore), Ok(Progress::NeedMore)) => {}
            (Ok(Progress::NeedMore), Err(_)) => assert!(cut < bytes.len()),
            (Ok(Progress::Complete(part)), Ok(Progress::Complete(whole))) => {
                assert!(cut >= size);
                assert_eq!(seen(&part), seen(whole));
            }
            (Err(part), Err(whole)) => assert_eq!(part, *whole),
            (part, whole) => panic!("{part:?} at {cut} of {bytes:x?}, but {whole:?}"),
        }
    }
}

/// All that a CONNECT says but for its credentials.
type Rest<'a> = (
    (Version, bool, u16, &'a str),
    Vec<(PropertyId, Vec<u8>)>,
    Option<(
        &'a str,
        &'a [u8],
        QualityOfService,
        bool,
        Vec<(PropertyId, Vec<u8>)>,
    )>,
);

fn rest<'a>(connect: &Connect<'a>) -> Rest<'a> {
    let list = |properties: super::Properties<'_>| {
        properties
            .iter()
            .map(|property| (property.id, plain(property.value)))
            .collect()
    };
    let will = connect.will().map(|will| {
        (
            will.topic(),
            will.payload(),
            will.qos(),
            will.retain(),
            list(will.properties()),
        )
    });
    let head = (
        connect.version(),
        connect.clean_start(),
        connect.keep_alive(),
        connect.client_id(),
    );
    (head, list(connect.properties()), will)
}

fn seen<'a>(connect: &Connect<'a>) -> (&'a [u8], Rest<'a>, Option<&'a str>, Option<&'a [u8]>) {
    (
        connect.as_bytes(),
        rest(connect),
        connect.user_name(),
        connect.password(),
    )
}

fn plain(value: Value<'_>) -> Vec<u8> {
    match value {
        Value::Flag(flag) => vec![u8::from(flag)],
        Value::TwoBytes(value) => value.to_be_bytes().to_vec(),
        Value::FourBytes(value) => value.to_be_bytes().to_vec(),
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Binary(bytes) => bytes.to_vec(),
        Value::Pair(name, value) => [name.as_bytes(), b"=", value.as_bytes()].concat(),
    }
}

/// What a gateway whose client certificate holds `A` does with the first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Allow,
    Refuse,
    Close,
    Wait,
}

fn decide(bytes: &[u8]) -> Outcome {
    match read(bytes) {
        Ok(Progress::NeedMore) => Outcome::Wait,
        Ok(Progress::Complete(connect)) if connect.password() == Some(A.as_bytes()) => {
            Outcome::Allow
        }
        Ok(Progress::Complete(_)) => Outcome::Refuse,
        Err(_) => Outcome::Close,
    }
}

/// A will of 261 (0x0105) bytes that shows `A` to who takes it for 0x15 bytes long.
fn smuggling_will() -> SampleWill {
    let mut payload = vec![b'.'; 21];
    payload.extend_from_slice(&string(0, USER.as_bytes())[1..]);
    payload.extend_from_slice(&string(0, A.as_bytes())[1..]);
    payload.resize(261, b'.');
    SampleWill::new(&payload)
}

fn vectors() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let v311 = |password: &str| Sample::login(Version::V311, USER, password);
    let login = |version, password: &str| Sample::login(version, USER, password).bytes();
    let padded = |password: &str| {
        Sample {
            client_id: vec![b'c'; 40],
            ..v311(password)
        }
        .bytes()
    };
    let tail = |count: usize| login(Version::V311, &A[A.len() - count..]);
    let user_only = Sample {
        password: None,
        ..v311("")
    }
    .bytes();
    let will = Sample {
        will: Some(SampleWill::new(b"gone")),
        ..v311(A)
    }
    .bytes();
    let smuggled = Sample {
        will: Some(smuggling_will()),
        ..v311(B)
    }
    .bytes();
    let keep_alive = |password: &str| {
        Sample {
            keep_alive: 0x8000,
            ..v311(password)
        }
        .bytes()
    };
    let long_id = Sample {
        client_id: vec![b'c'; 258],
        ..v311(A)
    }
    .bytes();
    let login_fields = [
        &string(0, USER.as_bytes())[1..],
        &string(0, A.as_bytes())[1..],
    ]
    .concat();
    let steer = |properties| {
        Sample {
            properties,
            ..Sample::login(Version::V5, USER, B)
        }
        .bytes()
    };
    let steer_by_text = steer(pair(b"n", &login_fields));
    let steer_by_data = steer([string(0x15, b"m"), string(0x16, &login_fields)].concat());
    vec![
        ("3.1.1, own secret", login(Version::V311, A), Outcome::Allow),
        (
            "3.1.1, another's secret",
            login(Version::V311, B),
            Outcome::Refuse,
        ),
        (
            "W2: no credentials",
            Sample::new(Version::V311).bytes(),
            Outcome::Refuse,
        ),
        ("W2: user name only", user_only, Outcome::Refuse),
        (
            "W2: empty password",
            login(Version::V311, ""),
            Outcome::Refuse,
        ),
        ("W1: last character", tail(1), Outcome::Refuse),
        ("W1: last twelve characters", tail(12), Outcome::Refuse),
        (
            "W1: with a space",
            login(Version::V311, &format!(" {A}")),
            Outcome::Refuse,
        ),
        (
            "W1: with the scheme",
            login(Version::V311, &format!("Client {A}")),
            Outcome::Refuse,
        ),
        ("will", will, Outcome::Allow),
        ("W5: secret smuggled in the will", smuggled, Outcome::Refuse),
        (
            "W9: keep alive 0x8000, another's",
            keep_alive(B),
            Outcome::Refuse,
        ),
        ("W9: keep alive 0x8000, own", keep_alive(A), Outcome::Allow),
        ("W7: remaining length 128, own", padded(A), Outcome::Allow),
        (
            "W7: remaining length 128, another's",
            padded(B),
            Outcome::Refuse,
        ),
        ("W6: 3.1, own", login(Version::V31, A), Outcome::Allow),
        (
            "W6: 3.1, another's",
            login(Version::V31, B),
            Outcome::Refuse,
        ),
        ("W8: 5, own", login(Version::V5, A), Outcome::Allow),
        ("W8: 5, another's", login(Version::V5, B), Outcome::Refuse),
        // A user property is text, which cannot hold the length bytes.
        (
            "W8: 5, a user property that steers",
            steer_by_text,
            Outcome::Close,
        ),
        (
            "W8: 5, authentication data that steers",
            steer_by_data,
            Outcome::Refuse,
        ),
        (
            "W3: PUBLISH first",
            b"\x30\x05\x00\x01tX".to_vec(),
            Outcome::Close,
        ),
        ("W3: PINGREQ first", vec![0xC0, 0], Outcome::Close),
        ("W3: DISCONNECT first", vec![0xE0, 0], Outcome::Close),
        ("W3: AUTH first", vec![0xF0, 0], Outcome::Close),
        ("W10: one byte", vec![0x10], Outcome::Wait),
        (
            "W10: forty bytes",
            login(Version::V311, A)[..40].to_vec(),
            Outcome::Wait,
        ),
        ("client id of 258 bytes", long_id, Outcome::Allow),
    ]
}

#[test]
fn the_replaced_parsers_vectors_are_decided_by_the_real_password() {
    for (name, bytes, expected) in vectors() {
        assert_eq!(decide(&bytes), expected, "{name}");
    }
}

#[test]
fn a_vector_cut_anywhere_is_decided_alike() {
    for (_, mut bytes, _) in vectors() {
        assert_cuts_agree(&bytes, &Limits::default());
        bytes.extend_from_slice(b"\x30\x05\x00\x01tX");
        assert_cuts_agree(&bytes, &Limits::default());
    }
}

#[test]
fn w4_a_second_connect_is_left_to_the_scanner_which_refuses_it() {
    let first = Sample::login(Version::V311, USER, A).bytes();
    let stream = [first.clone(), Sample::login(Version::V311, USER, B).bytes()].concat();
    let connect = complete(&stream);
    assert_eq!(connect.as_bytes(), first);
    let behind = &stream[connect.as_bytes().len()..];
    let error = PacketScanner::from_client(Version::V311, 1 << 20)
        .advance(behind)
        .unwrap_err();
    assert_eq!((error.forward, error.fault), (0, ScanFault::SecondConnect));
}

#[test]
fn w7_every_size_around_a_varint_step_is_read() {
    for id in (30..60).chain(16_200..16_400) {
        let sample = Sample {
            client_id: vec![b'c'; id],
            ..Sample::login(Version::V311, USER, A)
        };
        assert_eq!(decide(&sample.bytes()), Outcome::Allow, "client id of {id}");
    }
}

#[test]
fn w11_a_large_will_passes_below_the_limit_and_is_refused_above_it_by_its_header() {
    let will = Some(SampleWill::new(&vec![b'.'; 20_000]));
    let bytes = Sample {
        will,
        ..Sample::login(Version::V5, USER, A)
    }
    .bytes();
    assert_eq!(decide(&bytes), Outcome::Allow);
    let size = bytes.len() as u32;
    let limits = |max_packet| Limits {
        max_packet,
        ..Limits::default()
    };
    assert!(Connect::read(&bytes, &limits(size)).is_ok());
    // Up to its version: behind four bytes of fixed header.
    let opening = b"\x00\x04MQTT\x05".len();
    let read = Connect::read(&bytes[..4 + opening - 1], &limits(size - 1));
    assert!(matches!(read, Ok(Progress::NeedMore)));
    let error = Connect::read(&bytes[..4 + opening], &limits(size - 1)).unwrap_err();
    assert_eq!(
        error.fault,
        Fault::TooLarge {
            size,
            limit: size - 1
        }
    );
    assert_eq!(error.answer(false), Some(vec![0x20, 3, 0, 0x95, 0]));
    assert_cuts_agree(&bytes[..2000], &limits(size - 1));
}

#[test]
fn a_rule_that_is_broken_is_named() {
    let v31 = || Sample::login(Version::V31, USER, A);
    let v311 = || Sample::login(Version::V311, USER, A);
    let v5 = || Sample::login(Version::V5, USER, A);
    let will = |flags, topic: &[u8]| {
        Some(SampleWill {
            flags,
            topic: topic.to_vec(),
            ..SampleWill::new(b"")
        })
    };
    let text = |field| Fault::Text { field };
    let level = |level| Fault::UnsupportedVersion { level };
    let cases = [
        (
            Sample {
                first_byte: 0x11,
                ..v311()
            },
            Fault::HeaderFlags(1),
        ),
        (
            Sample {
                first_byte: 0x00,
                ..v311()
            },
            Fault::NotConnect { first_byte: 0 },
        ),
        (
            Sample {
                protocol: b"MQTX",
                ..v311()
            },
            Fault::UnknownProtocol,
        ),
        (
            Sample {
                protocol: b"mqtt",
                ..v311()
            },
            Fault::UnknownProtocol,
        ),
        (
            Sample {
                protocol: b"MQTTT",
                ..v311()
            },
            Fault::UnknownProtocol,
        ),
        (
            Sample {
                protocol: b"",
                ..v311()
            },
            Fault::UnknownProtocol,
        ),
        (Sample { level: 3, ..v311() }, level(3)),
        (Sample { level: 6, ..v311() }, level(6)),
        (Sample { level: 0, ..v311() }, level(0)),
        (Sample { level: 4, ..v31() }, level(4)),
        (
            Sample {
                level: 0x84,
                ..v311()
            },
            level(0x84),
        ),
        (
            Sample {
                level: 0x83,
                ..v31()
            },
            level(0x83),
        ),
        (
            Sample {
                flags: Some(0xC3),
                ..v311()
            },
            Fault::ReservedFlag,
        ),
        (
            Sample {
                flags: Some(0xC3),
                ..v31()
            },
            Fault::ReservedFlag,
        ),
        (
            Sample {
                flags: Some(0xC3),
                ..v5()
            },
            Fault::ReservedFlag,
        ),
        (
            Sample {
                flags: Some(0xCA),
                ..v311()
            },
            Fault::WillFlags,
        ),
        (
            Sample {
                flags: Some(0xE2),
                ..v5()
            },
            Fault::WillFlags,
        ),
        (
            Sample {
                will: will(0x18, b"t"),
                ..v311()
            },
            Fault::WillQos,
        ),
        (
            Sample {
                will: will(0x18, b"t"),
                ..v5()
            },
            Fault::WillQos,
        ),
        (
            Sample {
                user_name: None,
                ..v311()
            },
            Fault::PasswordWithoutUserName,
        ),
        (
            Sample {
                user_name: None,
                ..v31()
            },
            Fault::PasswordWithoutUserName,
        ),
        (
            Sample {
                client_id: vec![],
                ..v31()
            },
            Fault::ClientIdMissing,
        ),
        (
            Sample {
                client_id: vec![],
                clean: false,
                ..v311()
            },
            Fault::ClientIdMissing,
        ),
        (
            Sample {
                client_id: b"a\0".to_vec(),
                ..v311()
            },
            text("client id"),
        ),
        (
            Sample {
                client_id: b"a\xFF".to_vec(),
                ..v5()
            },
            text("client id"),
        ),
        (
            Sample {
                client_id: b"\xED\xA0\x80".to_vec(),
                ..v5()
            },
            text("client id"),
        ),
        (
            Sample {
                client_id: b"\xEF\xBF\xBF".to_vec(),
                ..v5()
            },
            text("client id"),
        ),
        (
            Sample {
                user_name: Some(b"u\n".to_vec()),
                ..v311()
            },
            text("user name"),
        ),
        (
            Sample {
                will: will(0, b"\xFF"),
                ..v311()
            },
            text("will topic"),
        ),
        (
            Sample {
                will: will(0, b""),
                ..v311()
            },
            Fault::WillTopic,
        ),
        (
            Sample {
                will: will(0, b"a/#"),
                ..v5()
            },
            Fault::WillTopic,
        ),
        (
            Sample {
                trailing: vec![0],
                ..v311()
            },
            Fault::TrailingBytes,
        ),
        (
            Sample {
                trailing: vec![0, 0],
                ..v5()
            },
            Fault::TrailingBytes,
        ),
        (
            Sample {
                flags: Some(0xC2),
                password: None,
                ..v311()
            },
            Fault::Truncated,
        ),
        (
            Sample {
                flags: Some(0xC2),
                password: None,
                ..v31()
            },
            Fault::Truncated,
        ),
    ];
    for (sample, expected) in cases {
        let bytes = sample.bytes();
        assert_eq!(fault(&bytes), expected, "{bytes:x?}");
        assert_cuts_agree(&bytes, &Limits::default());
    }
}

#[test]
fn what_is_legal_in_its_version_is_read() {
    let no_id = |version| Sample {
        client_id: vec![],
        ..Sample::login(version, USER, A)
    };
    assert_eq!(complete(&no_id(Version::V311).bytes()).client_id(), "");
    assert_eq!(
        complete(
            &Sample {
                clean: false,
                ..no_id(Version::V5)
            }
            .bytes()
        )
        .client_id(),
        ""
    );
    let no_user = Sample {
        user_name: None,
        ..Sample::login(Version::V5, "", A)
    }
    .bytes();
    assert_eq!(complete(&no_user).password(), Some(A.as_bytes()));
    let long_id = Sample {
        client_id: vec![b'c'; 24],
        ..Sample::new(Version::V31)
    }
    .bytes();
    assert_eq!(complete(&long_id).client_id().len(), 24);
    let will = SampleWill {
        flags: 0x30,
        ..SampleWill::new(b"\0\xFF")
    };
    let bytes = Sample {
        will: Some(will),
        ..Sample::new(Version::V5)
    }
    .bytes();
    let connect = complete(&bytes);
    let will = connect.will().expect("a will");
    assert_eq!(
        (will.topic(), will.payload()),
        ("w/t", b"\0\xFF".as_slice())
    );
    assert_eq!(
        (will.qos(), will.retain()),
        (QualityOfService::ExactlyOnce, true)
    );
}

#[test]
fn bridges_pass_only_where_they_are_let() {
    let limits = Limits {
        bridges: true,
        ..Limits::default()
    };
    for version in [Version::V31, Version::V311] {
        let plain = Sample::login(version, USER, A);
        let bytes = Sample {
            level: plain.level | 0x80,
            ..plain
        }
        .bytes();
        let Ok(Progress::Complete(connect)) = Connect::read(&bytes, &limits) else {
            panic!("a bridge is refused");
        };
        assert_eq!((connect.version(), connect.is_bridge()), (version, true));
        assert_eq!(
            connect.rewrite(&Changes::default()).as_deref(),
            Ok(bytes.as_slice())
        );
        assert!(read(&bytes).is_err());
    }
    let five = Sample {
        level: 0x85,
        ..Sample::new(Version::V5)
    }
    .bytes();
    assert!(Connect::read(&five, &limits).is_err());
}

#[test]
fn the_fixed_header_is_refused_as_soon_as_it_is_wrong() {
    let cases: [(&[u8], Fault); 6] = [
        (&[0x16, 0x03], Fault::HeaderFlags(6)),
        (b"G", Fault::NotConnect { first_byte: b'G' }),
        (&[0x10, 0x80, 0x00], Fault::Varint),
        (&[0x10, 0xFF, 0xFF, 0xFF, 0xFF], Fault::Varint),
        (&[0x10, 0x00], Fault::Truncated),
        (&[0x10, 0x0B], Fault::Truncated),
    ];
    for (bytes, expected) in cases {
        assert_eq!(fault(bytes), expected);
    }
    let error = read(b"\x10\xFF\xFF\xFF\x7F\x00\x04MQTT\x04").unwrap_err();
    assert!(matches!(
        error.fault,
        Fault::TooLarge {
            size: 268_435_460,
            ..
        }
    ));
}

#[test]
fn a_refusal_is_answered_in_the_clients_version() {
    let answer = |sample: Sample| read(&sample.bytes()).unwrap_err().answer(false);
    let five = |level| Sample {
        level,
        ..Sample::new(Version::V5)
    };
    assert_eq!(answer(five(6)), Some(vec![0x20, 3, 0, 0x84, 0]));
    assert_eq!(answer(five(3)), Some(vec![0x20, 2, 0, 1]));
    assert_eq!(answer(five(0x84)), Some(vec![0x20, 2, 0, 1]));
    let reserved = |version| Sample {
        flags: Some(0x03),
        ..Sample::new(version)
    };
    assert_eq!(
        answer(reserved(Version::V5)),
        Some(vec![0x20, 3, 0, 0x81, 0])
    );
    assert_eq!(answer(reserved(Version::V311)), None);
    let no_id = Sample {
        client_id: vec![],
        clean: false,
        ..Sample::new(Version::V311)
    };
    assert_eq!(answer(no_id), Some(vec![0x20, 2, 0, 2]));
    assert_eq!(read(&[0x30]).unwrap_err().answer(false), None);
    let twice = property(0x22, &[0, 1]).repeat(2);
    let twice = Sample {
        properties: twice,
        ..Sample::new(Version::V5)
    };
    assert_eq!(answer(twice), Some(vec![0x20, 3, 0, 0x82, 0]));
}

/// Property ids, each with a legal value.
type PropertyTable = Vec<(u8, Vec<u8>)>;
/// Writes a CONNECT with these properties in their place.
type Place = fn(Vec<u8>) -> Vec<u8>;

/// Every property of CONNECT, then of the will.
fn property_table() -> (PropertyTable, PropertyTable) {
    let text = string(0, b"text")[1..].to_vec();
    let two = pair(b"n", b"v")[1..].to_vec();
    let connect = vec![
        (0x11, vec![0, 0, 0, 0]),
        (0x15, text.clone()),
        (0x17, vec![0]),
        (0x19, vec![1]),
        (0x21, vec![0, 1]),
        (0x22, vec![0, 0]),
        (0x26, two.clone()),
        (0x27, vec![0, 0, 0, 1]),
    ];
    let will = vec![
        (0x01, vec![1]),
        (0x02, vec![0; 4]),
        (0x03, text.clone()),
        (0x08, text.clone()),
        (0x09, text),
        (0x18, vec![0; 4]),
        (0x26, two),
    ];
    (connect, will)
}

fn with_connect(properties: Vec<u8>) -> Vec<u8> {
    Sample {
        properties,
        ..Sample::login(Version::V5, USER, A)
    }
    .bytes()
}

fn with_will(properties: Vec<u8>) -> Vec<u8> {
    let will = SampleWill {
        properties,
        ..SampleWill::new(b"gone")
    };
    Sample {
        will: Some(will),
        ..Sample::login(Version::V5, USER, A)
    }
    .bytes()
}

#[test]
fn every_property_is_read_in_its_place_once_and_whole() {
    let (connect, will) = property_table();
    let places: [(_, Place); 2] = [(connect, with_connect), (will, with_will)];
    for (table, place) in places {
        for id in 0..=0xFF_u8 {
            let known = table.iter().find(|(known, _)| *known == id);
            let Some((_, value)) = known else {
                let bytes = place(property(id, &[0; 8]));
                assert!(read(&bytes).is_err(), "property {id:#x}");
                continue;
            };
            let once = property(id, value);
            complete(&place(once.clone()));
            let twice = place(once.repeat(2));
            assert_eq!(read(&twice).is_ok(), id == 0x26, "property {id:#x} twice");
            for cut in 0..once.len() {
                let expected = if cut == 0 {
                    Ok(())
                } else {
                    Err(Fault::Truncated)
                };
                let bytes = place(once[..cut].to_vec());
                let got = read(&bytes);
                assert_eq!(got.map(|_| ()).map_err(|error| error.fault), expected);
            }
        }
    }
}

#[test]
fn a_property_with_a_forbidden_value_is_refused() {
    let value = Fault::PropertyValue;
    let cases = [
        (
            with_connect(property(0x21, &[0, 0])),
            value(PropertyId::ReceiveMaximum),
        ),
        (
            with_connect(property(0x27, &[0; 4])),
            value(PropertyId::MaximumPacketSize),
        ),
        (
            with_connect(property(0x17, &[2])),
            value(PropertyId::RequestProblemInformation),
        ),
        (
            with_connect(property(0x19, &[2])),
            value(PropertyId::RequestResponseInformation),
        ),
        (
            with_will(property(0x01, &[2])),
            value(PropertyId::PayloadFormatIndicator),
        ),
        (
            with_will(string(0x08, b"a/+")),
            value(PropertyId::ResponseTopic),
        ),
        (
            with_connect(string(0x16, b"data")),
            Fault::AuthenticationMethodMissing,
        ),
        (
            with_connect(string(0x15, b"\0")),
            Fault::Text {
                field: "authentication method",
            },
        ),
        (
            with_connect(pair(b"a", b"\xFF")),
            Fault::Text {
                field: "user property",
            },
        ),
        (with_connect(vec![0x91, 0x00]), Fault::Varint),
        (
            with_connect(property(0x18, &[0; 4])),
            Fault::UnknownProperty(0x18),
        ),
        (
            with_will(property(0x11, &[0; 4])),
            Fault::UnknownProperty(0x11),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(fault(&bytes), expected);
        assert_cuts_agree(&bytes, &Limits::default());
    }
}

#[test]
fn properties_are_shown() {
    let properties = [
        property(0x11, &7_u32.to_be_bytes()),
        string(0x15, b"SCRAM"),
        string(0x16, b"\xFF\0"),
        property(0x17, &[0]),
        property(0x27, &99_u32.to_be_bytes()),
        pair(b"n", b"1"),
        pair(b"n", b"2"),
    ];
    let bytes = with_connect(properties.concat());
    let connect = complete(&bytes);
    assert_eq!(connect.session_expiry(), Some(7));
    assert_eq!(connect.authentication_method(), Some("SCRAM"));
    assert!(!connect.request_problem_information());
    assert_eq!(connect.maximum_packet_size(), Some(99));
    let pairs = connect.properties().iter().filter(|property| {
        matches!(
            property,
            Property {
                id: PropertyId::UserProperty,
                value: Value::Pair("n", _)
            }
        )
    });
    assert_eq!(pairs.count(), 2);
    let bare = Sample::new(Version::V5).bytes();
    assert!(complete(&bare).request_problem_information());
    assert_eq!(complete(&bare).session_expiry(), None);
}

#[test]
fn debug_shows_no_secret() {
    let bytes = Sample {
        client_id: B.into(),
        properties: [string(0x15, b"method"), string(0x16, A.as_bytes())].concat(),
        will: Some(SampleWill::new(A.as_bytes())),
        ..Sample::login(Version::V5, USER, A)
    }
    .bytes();
    let changes = Changes {
        user_name: Some(USER),
        password: Some(A.as_bytes()),
    };
    let shown = format!("{:?} {changes:?}", complete(&bytes));
    for secret in [A, B, USER, &format!("{:?}", A.as_bytes())] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("has_password: true"), "{shown}");
}

#[test]
fn a_password_is_filled_in_and_replaced() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for user_name in [None, Some(USER)] {
            for password in [None, Some(B)] {
                let user_name = user_name.map(Vec::from);
                let password = password.map(Vec::from);
                let sample = Sample {
                    user_name,
                    password,
                    ..Sample::new(version)
                };
                if version < Version::V5 && sample.user_name.is_none() && sample.password.is_some()
                {
                    continue;
                }
                let changed = Sample {
                    user_name: match &sample.user_name {
                        None if version < Version::V5 => Some(vec![]),
                        user_name => user_name.clone(),
                    },
                    password: Some(A.into()),
                    ..sample.clone()
                };
                let changes = Changes {
                    password: Some(A.as_bytes()),
                    ..Changes::default()
                };
                let rewritten = complete(&sample.bytes())
                    .rewrite(&changes)
                    .expect("it fits");
                assert_eq!(rewritten, changed.bytes());
            }
        }
    }
}

#[test]
fn a_user_name_is_filled_in_without_a_password() {
    let sample = Sample::new(Version::V311);
    let changes = Changes {
        user_name: Some(USER),
        ..Changes::default()
    };
    let rewritten = complete(&sample.bytes())
        .rewrite(&changes)
        .expect("it fits");
    assert_eq!(
        rewritten,
        Sample {
            user_name: Some(USER.into()),
            ..sample
        }
        .bytes()
    );
}

#[test]
fn what_a_connect_cannot_carry_is_not_written() {
    let bytes = Sample::new(Version::V5).bytes();
    let connect = complete(&bytes);
    let long = "x".repeat(65_536);
    let user = |user_name| Changes {
        user_name: Some(user_name),
        ..Changes::default()
    };
    let password = Changes {
        password: Some(long.as_bytes()),
        ..Changes::default()
    };
    let too_long = |field| Err(RewriteError::FieldTooLong { field });
    assert_eq!(
        connect.rewrite(&user("a\0")),
        Err(RewriteError::UserNameText)
    );
    assert_eq!(connect.rewrite(&user(&long)), too_long("user name"));
    assert_eq!(connect.rewrite(&password), too_long("password"));
    let fits = Changes {
        password: Some(&long.as_bytes()[1..]),
        ..Changes::default()
    };
    assert!(connect.rewrite(&fits).is_ok());
}

#[test]
fn random_connects_are_read_and_written_back() {
    let mut random = Random::new(1);
    for _ in 0..5_000 {
        let sample = Sample::random(&mut random);
        let bytes = sample.bytes();
        let connect = complete(&bytes);
        assert_eq!(connect.client_id().as_bytes(), sample.client_id);
        assert_eq!(
            connect.user_name().map(str::as_bytes),
            sample.user_name.as_deref()
        );
        assert_eq!(connect.password(), sample.password.as_deref());
        assert_eq!(connect.keep_alive(), sample.keep_alive);
        assert_eq!(
            connect.rewrite(&Changes::default()).as_deref(),
            Ok(bytes.as_slice())
        );

        let secret = random.bytes(300);
        let changes = Changes {
            password: Some(&secret),
            ..Changes::default()
        };
        let rewritten = connect.rewrite(&changes).expect("it fits");
        let changed = complete(&rewritten);
        assert_eq!(changed.password(), Some(secret.as_slice()));
        assert_eq!(
            changed.user_name().unwrap_or(""),
            connect.user_name().unwrap_or("")
        );
        assert_eq!(rest(&changed), rest(&connect));
    }
}

#[test]
fn random_connects_cut_anywhere_read_alike() {
    let mut random = Random::new(2);
    for _ in 0..200 {
        let mut bytes = Sample::random(&mut random).bytes();
        bytes.extend_from_slice(&random.bytes(8));
        assert_cuts_agree(&bytes, &Limits::default());
    }
}

/// What another codec reads in the same bytes: client id, keep alive, clean, credentials, will.
type Other = (
    String,
    u16,
    bool,
    Option<(String, String)>,
    Option<(String, Vec<u8>, bool)>,
);

fn read_by_other(bytes: &[u8], version: Version) -> Option<Other> {
    let mut stream = BytesMut::from(bytes);
    if version == Version::V5 {
        let Ok(v5::Packet::Connect(other)) = v5::read(&mut stream, 1 << 20) else {
            return None;
        };
        let login = other.login.map(|login| (login.username, login.password));
        let will = other
            .last_will
            .map(|will| (will.topic, will.message.to_vec(), will.retain));
        return Some((
            other.client_id,
            other.keep_alive,
            other.clean_session,
            login,
            will,
        ));
    }
    let Ok(v4::Packet::Connect(other)) = v4::read(&mut stream, 1 << 20) else {
        return None;
    };
    let login = other.login.map(|login| (login.username, login.password));
    let will = other
        .last_will
        .map(|will| (will.topic, will.message.to_vec(), will.retain));
    Some((
        other.client_id,
        other.keep_alive,
        other.clean_session,
        login,
        will,
    ))
}

fn as_other(connect: &Connect<'_>) -> Option<Other> {
    let password = std::str::from_utf8(connect.password().unwrap_or_default()).ok()?;
    let login = (
        connect.user_name().unwrap_or_default().to_owned(),
        password.to_owned(),
    );
    let login = (!login.0.is_empty() || !login.1.is_empty()).then_some(login);
    let will = connect.will().map(|will| {
        (
            will.topic().to_owned(),
            will.payload().to_vec(),
            will.retain(),
        )
    });
    let (id, clean) = (connect.client_id().to_owned(), connect.clean_start());
    Some((id, connect.keep_alive(), clean, login, will))
}

#[test]
fn an_independent_codec_reads_the_same() {
    let mut random = Random::new(3);
    let (mut compared, mut mutated) = (0, 0);
    for round in 0..20_000 {
        let mut sample = Sample::random(&mut random);
        sample.password = sample.password.map(|_| random.text(50));
        let mut bytes = sample.bytes();
        if round % 2 == 1 {
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << random.below(8);
        }
        let Ok(Progress::Complete(connect)) = read(&bytes) else {
            continue;
        };
        // The other codec does not know 3.1, and holds passwords as text.
        let (Version::V311 | Version::V5, Some(ours)) = (connect.version(), as_other(&connect))
        else {
            continue;
        };
        assert_eq!(
            read_by_other(connect.as_bytes(), connect.version()),
            Some(ours)
        );
        compared += 1;
        mutated += round % 2;
    }
    assert!(compared > 6_000 && mutated > 1_500, "{compared} {mutated}");
}

#[test]
fn bytes_of_any_kind_never_panic() {
    let mut random = Random::new(4);
    for _ in 0..20_000 {
        let mut bytes = Sample::random(&mut random).bytes();
        for _ in 0..random.below(6) {
            let place = random.below(bytes.len());
            bytes[place] = random.next() as u8;
        }
        bytes.truncate(random.below(bytes.len() + 1));
        if let Ok(Progress::Complete(connect)) = read(&bytes) {
            let again = connect.rewrite(&Changes::default());
            assert_eq!(again.as_deref(), Ok(connect.as_bytes()));
        }
    }
}

#[test]
fn every_type_has_its_number() {
    for number in 0..16_u8 {
        let kind = PacketType::of(number << 4);
        assert_eq!(kind.map_or(0, |kind| kind as u8), number);
    }
}
