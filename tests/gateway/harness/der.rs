//! Just enough DER (X.690) to take a certificate apart and put it together again, for what no
//! library would make.

pub const UTF8_STRING: u8 = 0x0c;
pub const PRINTABLE_STRING: u8 = 0x13;
pub const TELETEX_STRING: u8 = 0x14;
pub const IA5_STRING: u8 = 0x16;
pub const BMP_STRING: u8 = 0x1e;

pub const COMMON_NAME: &[u8] = &[0x55, 4, 3];
pub const ORGANISATION: &[u8] = &[0x55, 4, 10];

/// One element.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut der = vec![tag];
    match content.len() {
        0..=0x7f => der.push(length[1]),
        0x80..=0xff => der.extend([0x81, length[1]]),
        _ => der.extend([0x82, length[0], length[1]]),
    }
    der.extend(content);
    der
}

/// A SEQUENCE of elements.
pub fn sequence(elements: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &elements.concat())
}

/// A BIT STRING of whole bytes.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(0x03, &[&[0], bytes].concat())
}

/// The elements within the one that `der` is.
pub fn children(der: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = split(der).0;
    let mut children = Vec::new();
    while !rest.is_empty() {
        let after = split(rest).1;
        children.push(rest[..rest.len() - after.len()].to_vec());
        rest = after;
    }
    children
}

/// The content of the first element, and what follows it.
fn split(der: &[u8]) -> (&[u8], &[u8]) {
    let (start, length) = match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        short => (2, usize::from(short)),
    };
    der[start..].split_at(length)
}

/// An attribute of a name: a SEQUENCE of its type and its value.
pub fn attribute(kind: &[u8], string: u8, value: &[u8]) -> Vec<u8> {
    sequence(&[element(0x06, kind), element(string, value)])
}

/// A name whose every attribute stands in a relative distinguished name of its own.
pub fn name(attributes: &[Vec<u8>]) -> Vec<u8> {
    let sets: Vec<_> = attributes
        .iter()
        .map(|attribute| element(0x31, attribute))
        .collect();
    sequence(&sets)
}
