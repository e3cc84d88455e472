//! The access log: one JSON object a line on standard output, written by a thread of its own.
//!
//! The queue is bounded. When whatever reads standard output falls behind, requests do not wait:
//! lines are dropped and counted.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use serde::{Serialize, Serializer};

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

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
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    dropped: Counter,
}

impl AccessLog {
    /// A log on standard output; `dropped` counts the lines that found the queue full, or could not be written.
    #[must_use]
    pub fn to_stdout(dropped: Counter) -> Self {
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        let lost = dropped.clone();
        let writer = std::thread::spawn(move || write_all(&queue, io::stdout().lock(), &lost));
        Self {
            lines: Some(lines),
            writer: Some(writer),
            dropped,
        }
    }

    /// Queues one line.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let mut line = Vec::with_capacity(512);
        // Strings and numbers only: this cannot fail.
        if serde_json::to_writer(&mut line, record).is_err() {
            return;
        }
        line.push(b'\n');
        if let Some(Err(TrySendError::Full(_))) =
            self.lines.as_ref().map(|lines| lines.try_send(line))
        {
            self.dropped.inc();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            // A panic in the writer has been reported by its own thread.
            let _ = writer.join();
        }
    }
}

/// Writes lines as they come, flushing whenever none is waiting. What a full disk does not take waits in the
/// buffer, and lines beyond are lost, until there is room again.
fn write_all(queue: &Receiver<Vec<u8>>, out: impl Write, lost: &Counter) {
    let mut out = io::BufWriter::with_capacity(BUFFER, out);
    let mut failing = false;
    while let Ok(line) = queue.recv() {
        let mut line = Some(line);
        while let Some(next) = line {
            // Either it is in the buffer as a whole, or there is no room.
            if out.write_all(&next).is_err() {
                lost.inc();
            }
            line = queue.try_recv().ok();
        }
        match out.flush() {
            Ok(()) => failing = false,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                tracing::error!("standard output is closed; the access log ends here");
                return;
            }
            Err(error) if !failing => {
                tracing::error!(%error, "the access log cannot be written for now");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Takes nothing for so many times, then everything; tells what it has taken.
    struct Disk {
        full: usize,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let full = self.full > 0;
            self.full = self.full.saturating_sub(1);
            let bytes = if full { &[] } else { bytes };
            self.taken.send(bytes.to_vec()).unwrap();
            if full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_what_is_beyond_the_buffer_and_the_log_goes_on() {
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        let (taken, told) = mpsc::channel();
        let lost = Counter::default();
        let counter = lost.clone();
        let writer = std::thread::spawn(move || {
            write_all(&queue, Disk { full: 3, taken }, &counter);
        });
        lines.send(b"one\n".to_vec()).unwrap();
        assert_eq!(told.recv().unwrap(), b"");
        // For which the buffer must be empty, so that the disk is tried before the line and after it.
        lines.send(vec![b'x'; BUFFER - 1]).unwrap();
        assert_eq!(told.recv().unwrap(), b"");
        assert_eq!(told.recv().unwrap(), b"");
        lines.send(b"two\n".to_vec()).unwrap();
        assert_eq!(told.recv().unwrap(), b"one\ntwo\n");
        drop(lines);
        writer.join().unwrap();
        assert_eq!(lost.get(), 1);
    }
}
