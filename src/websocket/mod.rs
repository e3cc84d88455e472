//! WebSocket (RFC 6455): the opening handshake's rules, frames, and what a tunnel says at its end.
//!
//! Nothing is forwarded before the upstream has agreed, and what is forwarded is not looked into:
//! only frame boundaries are followed, so that a Close can be said between two frames.

mod bytes;
mod client;
mod close;
pub mod frame;
mod opening;

pub use bytes::ByteStream;
pub use client::{DialError, open};
pub use close::CloseCode;
pub use frame::FrameScanner;
pub use opening::{Opening, OpeningError, is_websocket_connect};
