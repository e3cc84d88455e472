//! What happens to a connection after `101 Switching Protocols`, and to a stream of HTTP/2 after the
//! answer to an extended CONNECT: the session goes on in a tunnel that ends when the client's right
//! to it does.

use std::sync::Arc;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_util::either::Either;

use super::Session;
use super::http2::Stream;
use crate::access::{Lapse, Refusal, Standing};
use crate::credential::Presented;
use crate::listener::Announcement;
use crate::mqtt;
use crate::quota::{Overrun, Place};
use crate::relay::{End, Idle, Relay};
use crate::route::Route;
use crate::upstream::{Busy, Switched};
use crate::websocket::{ByteStream, CloseCode, FrameScanner};

/// A client that will speak another protocol once it has been answered.
pub(super) enum Upgrade {
    /// With its connection.
    Http1(OnUpgrade),
    /// In a stream of it.
    Http2(oneshot::Receiver<Stream>),
}

type Client = Either<TokioIo<Upgraded>, Stream>;

impl Upgrade {
    /// Waits until the client has been answered; `None` if it is gone, or has been refused.
    async fn client(self) -> Option<Client> {
        match self {
            Self::Http1(upgrade) => upgrade.await.ok().map(TokioIo::new).map(Either::Left),
            Self::Http2(stream) => stream.await.ok().map(Either::Right),
        }
    }
}

/// One WebSocket, for as long as it is open.
pub(super) struct Tunnel {
    session: Arc<Session>,
    route: Arc<Route>,
    /// What it counts as while it is open.
    _places: Vec<Place>,
}

impl Tunnel {
    pub(super) fn new(session: Arc<Session>, route: Arc<Route>, places: Vec<Place>) -> Self {
        // In HTTP/1.1 the connection is no more than the tunnel; in HTTP/2 it serves on.
        session.progress.enter_tunnel();
        Self {
            session,
            route,
            _places: places,
        }
    }

    /// Takes the client over once it has been answered, and carries frames until either ends, or
    /// the client's token does. The server is `busy` with it for as long.
    pub(super) async fn run(
        self,
        client: Upgrade,
        upstream: Switched,
        busy: Busy,
        standing: Standing,
    ) {
        let Some(client) = client.client().await else {
            tracing::debug!("a WebSocket broke off before it was open");
            return;
        };
        let active = &self.session.edge.metrics.websockets_active;
        active.inc();
        self.relay(client, upstream, &standing).await;
        active.dec();
        drop(busy);
    }

    /// Takes the client over and speaks MQTT with it, inside the WebSocket. `presented` is what it
    /// has presented with the opening, with which it has been `counted`.
    pub(super) async fn run_mqtt(
        self,
        client: Upgrade,
        presented: Presented,
        counted: Result<(), Overrun>,
    ) {
        let Some(client) = client.client().await else {
            tracing::debug!("a WebSocket broke off before it was open");
            return;
        };
        let Session {
            edge,
            connection,
            lifecycle,
            ..
        } = &*self.session;
        let Some(upstream) = edge.upstream(&self.route) else {
            return;
        };
        let client = ByteStream::of_server(client);
        let lifecycle = lifecycle.clone();
        let entrance = mqtt::Entrance {
            servers: upstream.servers(),
            entry: self.route.entry(),
            demand: self.route.demand(),
            presented,
            counted: Some(counted),
            quotas: edge.rules.quotas.get(self.route.id),
        };
        mqtt::serve(client, connection, &edge.mqtt, entrance, lifecycle).await;
    }

    async fn relay(&self, client: Client, upstream: Switched, standing: &Standing) {
        let (up, down) = (FrameScanner::new(), FrameScanner::new());
        let idle = Idle::Either(self.route.idle_timeout);
        let mut relay = Relay::new(client, upstream, up, down, idle);
        let mut lifecycle = self.session.lifecycle.clone();
        let now = self.session.edge.clock.now();
        let certificate_left = self.session.connection.time_left(now);
        let token_left = standing.time_left(now);
        let expiry = token_left.map_or(certificate_left, |left| left.min(certificate_left));
        let expiry = tokio::time::sleep(expiry);
        tokio::pin!(expiry);
        let mut lapse = self.lapse(standing);
        let mut reconsidered = Lapse::never();
        loop {
            let reason = tokio::select! {
                biased;
                () = &mut expiry, if !relay.is_closing() => Some(CloseCode::PolicyViolation),
                refusal = &mut lapse, if !relay.is_closing() => Some(self.refuse(&refusal)),
                heard = lifecycle.changed(), if !relay.is_closing() => {
                    let verdict = self.verdict(heard, standing);
                    if verdict.is_none() && heard != Announcement::Revoked {
                        reconsidered = self.reconsider(standing);
                    }
                    verdict
                }
                refusal = &mut reconsidered, if !relay.is_closing() => {
                    tracing::warn!(error = %refusal, "closing a WebSocket that would not be opened any more");
                    Some(CloseCode::PolicyViolation)
                }
                // Last: it may use up the task's turn, and nothing else would be heard then.
                end = relay.run() => match end {
                    Some(end) => return self.report(&end),
                    None => Some(CloseCode::GoingAway),
                },
            };
            if let Some(code) = reason {
                tracing::debug!(connection = %self.session.connection.id(), ?code, "closing a WebSocket");
                relay.close(code.farewell());
            }
        }
    }

    fn report(&self, end: &End) {
        match end {
            End::Done => {}
            End::Breach(reason) => tracing::info!(reason, "a WebSocket was ended"),
            End::Client(error) => tracing::debug!(%error, "a client broke off"),
            End::Upstream(error) => tracing::debug!(%error, "a WebSocket broke off"),
        }
    }

    /// The loss of the right to stay that no announcement tells of.
    fn lapse<'a>(&'a self, standing: &'a Standing) -> Lapse<'a> {
        let Session {
            edge, connection, ..
        } = &*self.session;
        let gate = &edge.rules.gate;
        gate.lapse(standing, self.route.entry(), connection, &*edge.clock)
    }

    /// The loss of it with the rules that have changed.
    fn reconsider<'a>(&'a self, standing: &'a Standing) -> Lapse<'a> {
        let edge = &self.session.edge;
        let gate = &edge.rules.gate;
        gate.reconsider(standing, self.route.entry(), edge.clock.now())
    }

    fn refuse(&self, error: &Refusal) -> CloseCode {
        self.session.edge.metrics.refused(error.code());
        tracing::warn!(%error, connection = %self.session.connection.id(), "closing a WebSocket");
        CloseCode::PolicyViolation
    }

    /// What an announcement means at once for this client. No handshake visits a tunnel again, and no request
    /// its route, so whether it would still be let in is asked here; but the gate, which may have to ask
    /// somebody else, is asked beside the traffic.
    fn verdict(&self, heard: Announcement, standing: &Standing) -> Option<CloseCode> {
        match heard {
            Announcement::Draining => return Some(CloseCode::GoingAway),
            Announcement::Reloaded | Announcement::Superseded | Announcement::Revoked => {}
        }
        let edge = &self.session.edge;
        let now = edge.clock.now();
        if let Err(error) = edge.rules.gate.check_revocation(standing, now) {
            return Some(self.refuse(&error));
        }
        if heard == Announcement::Revoked {
            return None;
        }
        let connection = &self.session.connection;
        if let Some(terminator) = &edge.terminator
            && let Err(error) = connection.check_again(now, &terminator.policies())
        {
            tracing::warn!(%error, "closing a WebSocket whose client is no longer trusted");
            return Some(CloseCode::PolicyViolation);
        }
        None
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.session.progress.leave_tunnel();
    }
}
