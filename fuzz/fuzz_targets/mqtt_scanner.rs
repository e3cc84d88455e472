//! Any bytes as a relayed MQTT stream: no panic, and the same packets, bytes passed on and end
//! however the stream is split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::mqtt::codec::{PacketScanner, PacketStart, ScanFault, Version};

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, limit, seed], stream)) = data.split_first_chunk::<3>() else {
        return;
    };
    let scanner = scanner(choice, limit);
    let whole = relay(scanner.clone(), stream, |_| usize::MAX);
    assert_eq!(relay(scanner.clone(), stream, |_| 1), whole);
    let uneven = |round: usize| round.wrapping_mul(usize::from(seed) | 1) % 23 + 1;
    assert_eq!(relay(scanner, stream, uneven), whole);
    assert!(stream.starts_with(&whole.passed));
});

fn scanner(choice: u8, limit: u8) -> PacketScanner {
    let version = match choice % 3 {
        0 => Version::V31,
        1 => Version::V311,
        _ => Version::V5,
    };
    let max_packet = u32::from(limit) * u32::from(limit);
    let scanner = if choice & 0x40 == 0 {
        PacketScanner::from_client(version, max_packet)
    } else {
        PacketScanner::from_broker(version, max_packet)
    };
    if choice & 0x80 == 0 {
        scanner
    } else {
        scanner.allow_auth()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Relayed {
    passed: Vec<u8>,
    starts: Vec<PacketStart>,
    at_boundary: bool,
    fault: Option<ScanFault>,
}

fn relay(mut scanner: PacketScanner, mut unread: &[u8], piece: impl Fn(usize) -> usize) -> Relayed {
    let mut relayed = Relayed {
        at_boundary: true,
        ..Relayed::default()
    };
    let mut held = Vec::new();
    let mut round = 0;
    while !unread.is_empty() {
        round += 1;
        let (read, behind) = unread.split_at(piece(round).min(unread.len()));
        unread = behind;
        held.extend_from_slice(read);
        let forward = match scanner.advance_each(&held, |start| relayed.starts.push(start)) {
            Ok(observed) => {
                assert_eq!(observed.at_boundary, scanner.at_boundary());
                relayed.at_boundary = observed.at_boundary;
                observed.forward
            }
            Err(error) => {
                relayed.at_boundary = true;
                relayed.fault = Some(error.fault);
                error.forward
            }
        };
        relayed.passed.extend(held.drain(..forward));
        if relayed.fault.is_some() {
            return relayed;
        }
        assert!(held.len() <= 4);
    }
    relayed
}
