//! Fields that operators set, add and remove, and those that the gateway sets for browsers.

mod cors;
mod rules;
mod security;

use crate::harness::client::Answer;
use crate::harness::lab::Config;
use crate::harness::{Lab, Protocol};

const EVERY_HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A lab with these tables besides, where certificates may be left out.
async fn lab(tables: &str) -> Lab {
    Config::x509()
        .tls("client_auth = \"optional\"")
        .tables(tables)
        .start()
        .await
}

/// What is wrong with these tables.
async fn problems(tables: &str) -> String {
    let mut lab = Lab::x509().await;
    lab.config = Config::x509().tables(tables);
    lab.settings().map(drop).unwrap_err().to_string()
}

/// All values of a field of an answer.
fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let values = answer.headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}
