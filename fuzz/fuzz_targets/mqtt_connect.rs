//! Any bytes as a CONNECT: no panic, the same result however they are cut, and a rewrite that
//! changes what it was asked to and nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::mqtt::codec::{Changes, Connect, ConnectError, Limits, Progress};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let limits = Limits {
        bridges: choice & 1 != 0,
        ..Limits::default()
    };
    let buffer = frame(choice, rest);
    let whole = Connect::read(&buffer, &limits);
    check_cuts(&buffer, &limits, &whole);
    match whole {
        Ok(Progress::Complete(connect)) => check_rewrites(&connect, &limits),
        Ok(Progress::NeedMore) => {}
        Err(error) => {
            let _ = (error.answer(true), error.to_string());
        }
    }
});

/// The bytes as they are, or behind a fixed header, or behind all up to the connect flags, so that
/// the fuzzer need not find these by itself.
fn frame(choice: u8, rest: &[u8]) -> Vec<u8> {
    let opening: &[u8] = match choice >> 1 & 7 {
        0 => return rest.to_vec(),
        1 => b"",
        2 => b"\x00\x06MQIsdp\x03",
        3 | 4 => b"\x00\x04MQTT\x04",
        _ => b"\x00\x04MQTT\x05",
    };
    let size = opening.len() + rest.len();
    let mut buffer = vec![0x10];
    let mut left = size;
    while left > 0x7F {
        buffer.push(left as u8 | 0x80);
        left >>= 7;
    }
    buffer.push(left as u8);
    [buffer.as_slice(), opening, rest].concat()
}

fn check_cuts(buffer: &[u8], limits: &Limits, whole: &Result<Progress<Connect<'_>>, ConnectError>) {
    for cut in (0..buffer.len())
        .take(64)
        .chain(buffer.len().saturating_sub(16)..buffer.len())
    {
        match (Connect::read(&buffer[..cut], limits), whole) {
            (Ok(Progress::NeedMore), Ok(Progress::Complete(whole))) => {
                assert!(cut < whole.as_bytes().len());
            }
            (Ok(Progress::NeedMore), _) => {}
            (Ok(Progress::Complete(part)), Ok(Progress::Complete(whole))) => {
                assert!(same(&part, whole) && part.as_bytes() == whole.as_bytes());
                assert_eq!(part.password(), whole.password());
            }
            (Err(part), Err(whole)) => assert_eq!(part, *whole),
            _ => panic!("a cut at {cut} changes the result"),
        }
    }
}

fn check_rewrites(connect: &Connect<'_>, limits: &Limits) {
    let same_bytes = connect.rewrite(&Changes::default());
    assert_eq!(same_bytes.as_deref(), Ok(connect.as_bytes()));

    let changes = Changes {
        user_name: Some("user"),
        password: Some(b"\0secret"),
    };
    let changed = connect.rewrite(&changes).expect("short credentials fit");
    let limits = Limits {
        max_packet: u32::MAX,
        ..*limits
    };
    let Ok(Progress::Complete(read)) = Connect::read(&changed, &limits) else {
        panic!("what was written is not read");
    };
    assert_eq!(read.as_bytes(), changed);
    assert_eq!(read.user_name(), Some("user"));
    assert_eq!(read.password(), Some(b"\0secret".as_slice()));
    assert!(same(&read, connect));
}

/// Whether all but the credentials is the same.
fn same(one: &Connect<'_>, other: &Connect<'_>) -> bool {
    let will = |connect: &Connect<'_>| {
        connect.will().map(|will| {
            (
                will.topic().to_owned(),
                will.payload().to_vec(),
                will.qos(),
                will.retain(),
            )
        })
    };
    one.version() == other.version()
        && one.is_bridge() == other.is_bridge()
        && one.client_id() == other.client_id()
        && one.keep_alive() == other.keep_alive()
        && one.clean_start() == other.clean_start()
        && one.properties().iter().eq(other.properties().iter())
        && one.authentication_method() == other.authentication_method()
        && will(one) == will(other)
}
