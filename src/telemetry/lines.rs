//! Lines on their way to a standard stream, which a thread of its own writes.
//!
//! The queue is bounded. When whatever reads the stream falls behind, nobody waits for it: lines are
//! dropped and counted.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

/// How long the end of the process waits for a reader that reads nothing.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Takes lines; dropped, it writes what is queued and ends.
#[derive(Debug)]
pub(super) struct Lines {
    queue: Option<SyncSender<Vec<u8>>>,
    /// Closed when the last line has been written.
    written: Mutex<Receiver<()>>,
    lost: Counter,
}

impl Lines {
    /// Writes to `out`. `lost` counts the lines that found the queue full, or could not be written; `report`
    /// is told of an error once for as long as it lasts.
    pub(super) fn to<W>(out: W, lost: Counter, report: fn(&io::Error)) -> Self
    where
        W: Write + Send + 'static,
    {
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        let (end, written) = mpsc::channel();
        let unwritten = lost.clone();
        thread::spawn(move || {
            write_all(&queue, out, &unwritten, report);
            drop::<mpsc::Sender<()>>(end);
        });
        Self {
            queue: Some(lines),
            written: Mutex::new(written),
            lost,
        }
    }

    /// Queues one line.
    pub(super) fn write(&self, line: Vec<u8>) {
        let sent = self.queue.as_ref().map(|queue| queue.try_send(line));
        if let Some(Err(TrySendError::Full(_))) = sent {
            self.lost.inc();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.queue = None;
        let written = self.written.get_mut();
        let written = written.unwrap_or_else(PoisonError::into_inner);
        // Nothing ever comes but the end of it.
        let _ = written.recv_timeout(LAST_CHANCE);
    }
}

/// Writes lines as they come, flushing whenever none is waiting. What a full disk does not take waits in the
/// buffer, and lines beyond are lost, until there is room again; a reader that has left does not come back.
fn write_all(queue: &Receiver<Vec<u8>>, out: impl Write, lost: &Counter, report: fn(&io::Error)) {
    let mut out = BufWriter::with_capacity(BUFFER, out);
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
        let Err(error) = out.flush() else {
            failing = false;
            continue;
        };
        if !failing {
            report(&error);
        }
        if error.kind() == io::ErrorKind::BrokenPipe {
            return;
        }
        failing = true;
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
        let (taken, told) = mpsc::channel();
        let lost = Counter::default();
        let lines = Lines::to(Disk { full: 3, taken }, lost.clone(), |_| {});
        lines.write(b"one\n".to_vec());
        assert_eq!(told.recv().unwrap(), b"");
        // For which the buffer must be empty, so that the disk is tried before the line and after it.
        lines.write(vec![b'x'; BUFFER - 1]);
        assert_eq!(told.recv().unwrap(), b"");
        assert_eq!(told.recv().unwrap(), b"");
        lines.write(b"two\n".to_vec());
        assert_eq!(told.recv().unwrap(), b"one\ntwo\n");
        drop(lines);
        assert_eq!(lost.get(), 1);
    }

    /// Takes nothing, and does not say so, until its test ends.
    struct Stalled(Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_reads_nothing_neither_meanwhile_nor_for_ever_at_the_end() {
        let (_end, ended) = mpsc::channel();
        let lost = Counter::default();
        let lines = Lines::to(Stalled(ended), lost.clone(), |_| {});
        let more = 10_000;
        for _ in 0..QUEUE + more {
            lines.write(vec![b'x'; 64]);
        }
        // What the buffer holds has left the queue.
        let least = more - BUFFER / 64 - 1;
        let lost = usize::try_from(lost.get()).unwrap();
        assert!((least..=more).contains(&lost), "{lost}");
        drop(lines);
    }
}
