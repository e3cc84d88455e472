//! What the gateway tells of itself: the operational log, the access log and the metrics.
//!
//! No secret reaches any of them: they are given fingerprints, paths without their query, and
//! reasons; and the libraries below, which do log header values, are held at warnings.

mod access_log;
mod lines;
mod log;
mod metrics;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

pub use access_log::{AccessLog, AccessRecord};
pub use log::LogEnd;
pub use metrics::{
    CalloutMetrics, HandshakeResult, ListenerMetrics, Metrics, OpenConnection, RequestMetrics,
    ServerMetrics, Shed, TokenMetrics, UpstreamMetrics,
};

/// How much the operational log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing works as it should.
    Error,
    /// Something is wrong and was coped with; refused certificates.
    Warn,
    /// The gateway's own life.
    Info,
    /// Each connection.
    Debug,
    /// Everything.
    Trace,
}

/// How the operational log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For reading in a terminal.
    Text,
}

/// The operational log as configured.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// How much it says.
    pub level: Level,
    /// How it is written.
    pub format: Format,
    /// Whether each request leaves a line on standard output.
    pub access: bool,
}

/// Sends the operational log to standard error from here on, until what is returned is dropped; a second call
/// changes nothing.
pub fn init(settings: &LogSettings) -> LogEnd {
    let level = match settings.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    // Only our own messages follow the level: at debug, h2 and hyper print header values.
    let filter = EnvFilter::new(format!("warn,portcullis={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say on standard error that standard error cannot be written, and panic.
        .log_internal_errors(false)
        .with_writer(log::Queued::default);
    let already_set = match settings.format {
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
        Format::Text => builder.finish().try_init(),
    };
    drop(already_set);
    log::begin()
}
