//! The access log: one JSON object a line on standard output.

use std::io;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use serde::{Serialize, Serializer};

use super::lines::Lines;

/// One request, ended.
#[derive(Debug, Serialize)]
pub struct AccessRecord<'a> {
    /// When it ended; written as RFC 3339 in UTC with milliseconds.
    #[serde(rename = "ts", serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The id that the client and the upstream were given.
    pub request_id: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The peer's address.
    pub client_ip: std::net::IpAddr,
    /// The peer's port.
    pub client_port: u16,
    /// `http/1.1` or `h2`.
    pub protocol: &'a str,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path as routed; never the query.
    pub path: &'a str,
    /// The status answered.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the end of the request's head to the end of the answer's body.
    pub duration_ms: f64,
    /// The route's name, if one was found.
    pub route: Option<&'a str>,
    /// `host:port` of the server whose answer it is, as configured.
    pub server: Option<&'a str>,
    /// SHA-256 of the client's certificate.
    pub cert_fp_sha256: Option<&'a str>,
    /// Why the request was refused or failed, if it was.
    pub reason: Option<&'a str>,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Takes records; dropped, it writes what is queued and ends.
#[derive(Debug)]
pub struct AccessLog(Lines);

impl AccessLog {
    /// A log on standard output; `dropped` counts the lines that found the queue full, or could not be written.
    #[must_use]
    pub fn to_stdout(dropped: Counter) -> Self {
        Self(Lines::to(io::stdout(), dropped, |error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                tracing::error!("standard output is closed; the access log ends here");
            } else {
                tracing::error!(%error, "the access log cannot be written for now");
            }
        }))
    }

    /// Queues one line.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let mut line = Vec::with_capacity(512);
        // Strings and numbers only: this cannot fail.
        if serde_json::to_writer(&mut line, record).is_err() {
            return;
        }
        line.push(b'\n');
        self.0.write(line);
    }
}
