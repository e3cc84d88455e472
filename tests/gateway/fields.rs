//! Fields that operators set, add and remove, and those that the gateway sets for browsers.

mod cors;
mod rules;
mod security;

use crate::harness::Protocol;
use crate::harness::client::Answer;
use crate::harness::lab::{lab, problems};

const EVERY_HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// All values of a field of an answer.
fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let values = answer.headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}
