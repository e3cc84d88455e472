//! Closing a WebSocket that is tunnelled: what is said to each side, and how its frames are
//! followed to say it at the right place.

use std::convert::Infallible;

use super::frame::{self, FrameScanner};
use crate::relay::{Breach, Cause, Farewell, Framing};

/// Why the gateway closes a WebSocket (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// 1001: the gateway drains, or nothing has moved for too long.
    GoingAway,
    /// 1008: the client's right to the connection has ended.
    PolicyViolation,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn value(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::PolicyViolation => 1008,
        }
    }

    /// A Close frame for either side.
    #[must_use]
    pub fn farewell(self) -> Farewell {
        let [high, low] = self.value().to_be_bytes();
        Farewell {
            client: frame::close(self.value(), ""),
            // From a client, so masked. The mask protects caches from scripts (RFC 6455 §10.3), of
            // which there are none here: zero will do.
            upstream: vec![0x88, 0x82, 0, 0, 0, 0, high, low],
        }
    }
}

/// A tunnel passes every frame; only where they end matters.
impl Framing for FrameScanner {
    type Fault = Infallible;

    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Breach<Infallible>> {
        Self::advance(self, bytes);
        Ok(bytes.len())
    }

    fn at_boundary(&self) -> bool {
        Self::at_boundary(self)
    }

    fn under_way(&self, bytes: &[u8]) -> usize {
        Self::under_way(self, bytes)
    }

    fn has_ended(&self) -> bool {
        self.close_seen() && self.at_boundary()
    }

    fn check_end(&self) -> Result<(), Infallible> {
        Ok(())
    }

    /// An upstream that fails is seen to by the end of the connection.
    fn farewell(&mut self, _: &Cause<Infallible>) -> Vec<u8> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_says_its_code_to_both_sides() {
        let farewell = CloseCode::GoingAway.farewell();
        assert_eq!(farewell.client, [0x88, 2, 0x03, 0xe9]);
        assert_eq!(farewell.upstream, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
    }
}
