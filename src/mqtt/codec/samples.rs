//! CONNECT packets for tests: a writer that knows no rule, so it can break each, and a generator
//! of random ones that keep them all.

use super::connect::Version;
use super::field::{write_binary, write_varint};

/// Two secrets and a user, shaped as in the deployment that Portcullis replaces.
pub(super) const A: &str = "8f14e45f-ceea-467f-a8d5-0c3a1b2d4e6f";
pub(super) const B: &str = "1c383cd3-0b7c-498a-bb2d-5f7a9e1d3c5b";
pub(super) const USER: &str = "c9f0f895-fb98-4b91-99f5-1fd0297e236d";

/// The fields of a CONNECT as they are to be written. `flags` are computed where `None`.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) first_byte: u8,
    pub(super) protocol: &'static [u8],
    pub(super) level: u8,
    pub(super) flags: Option<u8>,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    pub(super) properties: Vec<u8>,
    pub(super) client_id: Vec<u8>,
    pub(super) will: Option<SampleWill>,
    pub(super) user_name: Option<Vec<u8>>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) trailing: Vec<u8>,
}

#[derive(Clone)]
pub(super) struct SampleWill {
    pub(super) flags: u8,
    pub(super) properties: Vec<u8>,
    pub(super) topic: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl SampleWill {
    pub(super) fn new(payload: &[u8]) -> Self {
        Self {
            flags: 0,
            properties: vec![],
            topic: b"w/t".to_vec(),
            payload: payload.to_vec(),
        }
    }
}

impl Sample {
    /// A clean CONNECT with client id `device` and no credentials.
    pub(super) fn new(version: Version) -> Self {
        let (protocol, level): (&[u8], u8) = match version {
            Version::V31 => (b"MQIsdp", 3),
            Version::V311 => (b"MQTT", 4),
            Version::V5 => (b"MQTT", 5),
        };
        Self {
            first_byte: 0x10,
            protocol,
            level,
            flags: None,
            clean: true,
            keep_alive: 60,
            properties: vec![],
            client_id: b"device".to_vec(),
            will: None,
            user_name: None,
            password: None,
            trailing: vec![],
        }
    }

    pub(super) fn login(version: Version, user_name: &str, password: &str) -> Self {
        Self {
            user_name: Some(user_name.into()),
            password: Some(password.into()),
            ..Self::new(version)
        }
    }

    fn flags(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        self.flags.unwrap_or(
            bit(self.clean, 0x02)
                | self.will.as_ref().map_or(0, |will| 0x04 | will.flags)
                | bit(self.password.is_some(), 0x40)
                | bit(self.user_name.is_some(), 0x80),
        )
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        let mut packet = vec![self.first_byte];
        write_varint(&mut packet, body.len() as u32);
        packet.extend_from_slice(&body);
        packet
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        write_binary(&mut body, self.protocol);
        body.extend_from_slice(&[self.level, self.flags()]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        self.write_properties(&mut body, &self.properties);
        write_binary(&mut body, &self.client_id);
        if let Some(will) = &self.will {
            self.write_properties(&mut body, &will.properties);
            write_binary(&mut body, &will.topic);
            write_binary(&mut body, &will.payload);
        }
        for field in [&self.user_name, &self.password].into_iter().flatten() {
            write_binary(&mut body, field);
        }
        body.extend_from_slice(&self.trailing);
        body
    }

    fn write_properties(&self, body: &mut Vec<u8>, properties: &[u8]) {
        if self.level == 5 {
            write_varint(body, properties.len() as u32);
            body.extend_from_slice(properties);
        }
    }

    /// A random CONNECT that keeps every rule.
    pub(super) fn random(random: &mut Random) -> Self {
        let version = random.pick(&[Version::V31, Version::V311, Version::V5]);
        let mut sample = Self::new(version);
        sample.clean = random.flip();
        sample.keep_alive = random.next() as u16;
        sample.client_id = random.text(300);
        if sample.client_id.is_empty() && (version == Version::V31 || !sample.clean) {
            sample.client_id = b"x".to_vec();
        }
        sample.properties = random_connect_properties(random);
        sample.will = random.flip().then(|| random_will(random));
        sample.user_name = random.flip().then(|| random.text(70));
        let may_have_password = version == Version::V5 || sample.user_name.is_some();
        sample.password = (may_have_password && random.flip()).then(|| random.bytes(200));
        sample
    }
}

fn random_will(random: &mut Random) -> SampleWill {
    let mut topic = random.text(40);
    topic.push(b't');
    SampleWill {
        flags: random.pick(&[0x00, 0x08, 0x10, 0x20, 0x28, 0x30]),
        properties: random_will_properties(random),
        topic,
        payload: random.bytes(400),
    }
}

fn random_connect_properties(random: &mut Random) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = vec![
        property(0x11, &random.next().to_be_bytes()[..4]),
        property(0x17, &[random.next() as u8 & 1]),
        property(0x19, &[random.next() as u8 & 1]),
        property(0x21, &(random.next() as u16 | 1).to_be_bytes()),
        property(0x22, &(random.next() as u16).to_be_bytes()),
        property(0x27, &(random.next() as u32 | 1).to_be_bytes()),
        pair(&random.text(20), &random.text(20)),
        pair(&random.text(20), &random.text(20)),
        [
            string(0x15, &random.text(20)),
            string(0x16, &random.bytes(30)),
        ]
        .concat(),
    ];
    random.some_of(&mut parts)
}

fn random_will_properties(random: &mut Random) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = vec![
        property(0x01, &[random.next() as u8 & 1]),
        property(0x02, &random.next().to_be_bytes()[..4]),
        property(0x18, &random.next().to_be_bytes()[..4]),
        string(0x03, &random.text(20)),
        string(0x08, b"reply/to"),
        string(0x09, &random.bytes(30)),
        pair(&random.text(20), &random.text(20)),
    ];
    random.some_of(&mut parts)
}

pub(super) fn property(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id], value].concat()
}

pub(super) fn string(id: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![id];
    write_binary(&mut out, value);
    out
}

pub(super) fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = string(0x26, name);
    write_binary(&mut out, value);
    out
}

/// xorshift64*: enough to vary test data, and the same in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    pub(super) fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(super) fn bytes(&mut self, end: usize) -> Vec<u8> {
        (0..self.below(end)).map(|_| self.next() as u8).collect()
    }

    pub(super) fn text(&mut self, end: usize) -> Vec<u8> {
        let letters = ['a', 'Z', '7', '/', '-', ' ', 'é', '温', '😀', '\u{FEFF}'];
        let text: String = (0..self.below(end)).map(|_| self.pick(&letters)).collect();
        text.into_bytes()
    }

    fn some_of(&mut self, parts: &mut [Vec<u8>]) -> Vec<u8> {
        for last in (1..parts.len()).rev() {
            parts.swap(last, self.below(last + 1));
        }
        parts
            .iter()
            .filter(|_| self.flip())
            .flatten()
            .copied()
            .collect()
    }
}
