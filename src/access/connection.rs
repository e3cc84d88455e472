//! [`Connection`]: what is known once per connection, before any request on it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::identity::DeviceIdentity;
use crate::tls::{Agreed, ClientCertificateError, Policies, Policy, Resumed, VerifiedPeer};
use crate::upstream::{IntroducedTls, Introduction, Shown};

/// Names a connection in logs and request ids; no two of a process are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The next one. Ids start at a random place, so that those of two runs do not meet.
    #[must_use]
    pub fn next(counter: &AtomicU64) -> Self {
        Self(counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A number from 0 up to 1, spread evenly over neighbouring connections: for what should not
    /// happen to all of them at once.
    #[must_use]
    pub fn share(self) -> f64 {
        /// 2^32 divided by the golden ratio: neighbours fall far apart.
        const GOLDEN: u64 = 0x9E37_79B9;
        let place = self.0.wrapping_mul(GOLDEN) & 0xFFFF_FFFF;
        #[expect(clippy::cast_precision_loss, reason = "32 bits fit the mantissa")]
        let share = place as f64 / 4_294_967_296.0;
        share
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Longer than any connection lasts, short enough for every timer.
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a TLS handshake has settled.
#[derive(Debug)]
pub struct Handshake {
    /// The policy that it met.
    pub policy: Arc<Policy>,
    /// All policies of the listener at that time.
    pub policies: Arc<Policies>,
    /// How the session came about.
    pub kind: Resumed,
    /// What both sides have agreed on.
    pub agreed: Agreed,
}

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    remote: SocketAddr,
    local: SocketAddr,
    /// `None` if no certificate was asked for or given.
    device: Option<Arc<DeviceIdentity>>,
    /// `None` on a listener without TLS.
    handshake: Option<Handshake>,
}

impl Connection {
    /// The connection from `remote` to `local`, with what its handshake has settled and the client's
    /// chain, if there were any.
    #[must_use]
    pub fn new(
        id: ConnectionId,
        remote: SocketAddr,
        local: SocketAddr,
        handshake: Option<Handshake>,
        peer: Option<VerifiedPeer>,
    ) -> Self {
        Self {
            id,
            remote,
            local,
            device: peer.map(DeviceIdentity::new).map(Arc::new),
            handshake,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The peer's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.handshake.is_some()
    }

    /// Whom the handshake has shown; `None` if no certificate was asked for or given.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<DeviceIdentity>> {
        self.device.as_ref()
    }

    /// The certificate's fingerprint, for logs.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        self.device.as_deref().map(DeviceIdentity::fingerprint)
    }

    /// Whether it may carry requests for `host` (RFC 9110 §7.4): not if that host belongs to
    /// another TLS policy, whose demands it has not met.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let covers = |handshake: &Handshake| handshake.policies.covers(&handshake.policy, host);
        self.handshake.as_ref().is_none_or(covers)
    }

    /// Checks the client against the policies that are in force now, since no handshake visits an
    /// open connection again.
    ///
    /// # Errors
    /// [`ClientCertificateError`] if its certificate would not be accepted today.
    pub fn check_again(&self, now: u64, policies: &Policies) -> Result<(), ClientCertificateError> {
        match (&self.handshake, &self.device) {
            (Some(handshake), Some(device)) => {
                policies.check_again(handshake.policy.name(), device.peer(), now)
            }
            (_, None) | (None, _) => Ok(()),
        }
    }

    /// Until the client's certificate expires; `now` is in seconds since the Unix epoch.
    #[must_use]
    pub fn time_left(&self, now: u64) -> Duration {
        let Some(device) = &self.device else {
            return FOREVER;
        };
        // The last valid second is notAfter itself (RFC 5280 §4.1.2.5).
        Duration::from_secs((device.not_after() + 1).saturating_sub(now)).min(FOREVER)
    }

    /// The client as servers may be told of it.
    #[must_use]
    pub fn introduction(&self) -> Introduction<'_> {
        Introduction {
            source: self.remote,
            destination: self.local,
            tls: self
                .handshake
                .as_ref()
                .map(|handshake| self.introduced(handshake)),
        }
    }

    fn introduced<'a>(&'a self, handshake: &'a Handshake) -> IntroducedTls<'a> {
        let device = self.device.as_deref();
        IntroducedTls {
            version: handshake.agreed.version,
            server_name: handshake.agreed.server_name.as_deref(),
            certificate: match (device, handshake.kind) {
                (None, _) => Shown::Never,
                (Some(_), Resumed::No) => Shown::Now,
                (Some(_), Resumed::Yes) => Shown::Earlier,
            },
            common_name: device.and_then(|device| device.client_secret().ok()),
        }
    }
}
