//! The operational log's way to standard error.

use std::io;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;

use super::lines::Lines;

/// The log of this process, while it is written: `tracing` has one for all of it, too.
static LOG: ArcSwapOption<Lines> = ArcSwapOption::const_empty();

/// Lines that were dropped because their reader was too slow, or they could not be written.
pub(super) static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Ends the log when it is dropped: what has been said by then is written, unless nobody reads it.
#[derive(Debug)]
#[must_use]
pub struct LogEnd(());

impl Drop for LogEnd {
    fn drop(&mut self) {
        LOG.store(None);
    }
}

pub(super) fn begin() -> LogEnd {
    // There is no other place to say that this one cannot be written.
    let lines = Lines::to(io::stderr(), DROPPED.clone(), |_| {});
    LOG.store(Some(Arc::new(lines)));
    LogEnd(())
}

/// One message, which is queued when it is complete.
#[derive(Debug, Default)]
pub(super) struct Queued(Vec<u8>);

impl io::Write for Queued {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.0);
        if let Some(lines) = &*LOG.load() {
            lines.write(line);
        }
    }
}
