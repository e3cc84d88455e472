//! What happens to a connection after `101 Switching Protocols`: the session goes on in a tunnel
//! that ends when the client's right to it does.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::Session;
use crate::access::ClientIdentity;
use crate::listener::Phase;
use crate::relay::{End, Idle, Relay};
use crate::route::Route;
use crate::websocket::{CloseCode, FrameScanner};

/// One WebSocket, for as long as it is open.
pub(super) struct Tunnel {
    session: Arc<Session>,
    route: Arc<Route>,
}

impl Tunnel {
    pub(super) fn new(session: Arc<Session>, route: Arc<Route>) -> Self {
        Self { session, route }
    }

    /// Takes both sides over once hyper lets them go, and carries frames until either ends.
    pub(super) async fn run(self, client: OnUpgrade, upstream: OnUpgrade) {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(sides) => sides,
            Err(error) => {
                tracing::debug!(%error, "a WebSocket broke off before it was open");
                return;
            }
        };
        let active = &self.session.edge.metrics.websockets_active;
        active.inc();
        self.relay(client, upstream).await;
        active.dec();
    }

    async fn relay(&self, client: Upgraded, upstream: Upgraded) {
        let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let (up, down) = (FrameScanner::new(), FrameScanner::new());
        let idle = Idle::Either(self.route.idle_timeout);
        let mut relay = Relay::new(client, upstream, up, down, idle);
        let mut lifecycle = self.session.lifecycle.clone();
        let expiry = tokio::time::sleep(self.time_left());
        tokio::pin!(expiry);
        loop {
            let reason = tokio::select! {
                end = relay.run() => match end {
                    Some(end) => return self.report(&end),
                    None => Some(CloseCode::GoingAway),
                },
                () = &mut expiry, if !relay.is_closing() => Some(CloseCode::PolicyViolation),
                phase = lifecycle.changed(), if !relay.is_closing() => self.verdict(phase),
            };
            if let Some(code) = reason {
                tracing::debug!(connection = %self.session.arrived.connection.id(), ?code, "closing a WebSocket");
                relay.close(code.farewell());
            }
        }
    }

    fn report(&self, end: &End) {
        match end {
            End::Done => {}
            End::Breach(reason) => tracing::info!(reason, "a WebSocket was ended"),
            End::Broken(error) => tracing::debug!(%error, "a WebSocket broke off"),
        }
    }

    /// What an announcement means for this client. No handshake visits a tunnel again, so whether
    /// its certificate would still be accepted is asked here.
    fn verdict(&self, phase: Phase) -> Option<CloseCode> {
        let Phase::Serving(_) = phase else {
            return Some(CloseCode::GoingAway);
        };
        let arrived = &self.session.arrived;
        let peer = arrived.peer.as_ref()?;
        let now = self.session.edge.clock.now();
        let policies = self.session.edge.terminator.policies();
        match policies.check_again(arrived.policy.name(), peer, now) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "closing a WebSocket whose client is no longer trusted");
                Some(CloseCode::PolicyViolation)
            }
        }
    }

    /// Until the certificate that opened the tunnel expires.
    fn time_left(&self) -> Duration {
        /// Longer than any timer needs to be, short enough for all of them.
        const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        match self.session.arrived.connection.identity() {
            ClientIdentity::Device(device) => {
                let now = self.session.edge.clock.now();
                // The last valid second is notAfter itself (RFC 5280 §4.1.2.5).
                Duration::from_secs((device.not_after() + 1).saturating_sub(now)).min(FOREVER)
            }
            ClientIdentity::Absent | ClientIdentity::Unusable(_) => FOREVER,
        }
    }
}
