//! WebSocket (RFC 6455): the opening handshake's rules and the relay between two open sockets.
//!
//! Nothing is forwarded before the upstream has agreed, and what is forwarded is not looked into:
//! only frame boundaries are followed, so that a Close can be said between two frames.

mod frame;
mod opening;
mod relay;

pub use opening::{Opening, OpeningError};
pub use relay::{CloseCode, Relay};
