//! How a broker is asked whether it is well: by a CONNECT without credentials.

use super::codec::{DISCONNECT_V3, Version, probe_connect};
use crate::upstream::Dialogue;

/// What a broker is asked. It is well if it answers with a CONNACK: refusing a client without
/// credentials is its duty, saying that it is unavailable (MQTT 3.1.1 §3.2.2.3) is not.
#[must_use]
pub fn probe() -> Dialogue {
    let question = probe_connect(Version::V311, "portcullis-probe");
    Dialogue {
        question: question.unwrap_or_default(),
        judge,
        farewell: &DISCONNECT_V3,
    }
}

fn judge(answer: &[u8]) -> Option<bool> {
    /// The fixed header of a CONNACK, whose length is fixed too.
    const CONNACK: [u8; 2] = [0x20, 2];
    const SERVER_UNAVAILABLE: u8 = 3;
    let begins = answer.iter().zip(&CONNACK).all(|(one, other)| one == other);
    match answer {
        _ if !begins => Some(false),
        [_, _, _, code, ..] => Some(*code != SERVER_UNAVAILABLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_connack_is_a_sign_of_life_but_one() {
        for (answer, expected) in [
            (&[][..], None),
            (&[0x20], None),
            (&[0x20, 2, 0], None),
            (&[0x20, 2, 0, 0], Some(true)),
            (&[0x20, 2, 0, 5], Some(true)),
            (&[0x20, 2, 0, 3], Some(false)),
            (b"HTTP", Some(false)),
            (&[0x20, 3, 0, 0, 0], Some(false)),
        ] {
            assert_eq!(judge(answer), expected, "{answer:?}");
        }
    }
}
