//! Which route a request meets, and what the gateway answers itself.

mod conditions;
mod origins;
mod own_answers;
mod rewrites;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::Protocol;
use crate::harness::lab::{lab, problems};

/// The answer to a request without TLS, as it comes.
pub(super) async fn plain(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// The value of a field of such an answer.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const EVERY_HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
