//! The way of one MQTT connection: CONNECT, gate, broker, relay.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot::{self, error::TryRecvError};
use zeroize::Zeroizing;

use super::broker::Broker;
use super::codec::{
    Changes, Connack, ConnackReason, Connect, DisconnectReason, Limits, Progress, ScanFault,
};
use super::frames::{Fault, Packets};
use super::refusal::{Asked, Failure};
use super::{Edge, Ending, MissingPassword, Transport, let_go};
use crate::access::{Admission, ClientCredential, Connection, Lapse, Refusal, Standing};
use crate::credential::{Place, Presented};
use crate::listener::crowd::household;
use crate::listener::{Announcement, Remote};
use crate::quota::{self, Key, Overrun, Quota, Quotas};
use crate::relay::{Cause, End, Farewell, Idle, Relay};
use crate::route::{Demand, Entry};
use crate::secret::Secret;
use crate::upstream::{Busy, Outcome, Servers};

/// What stands behind the gate, and what it takes to pass.
#[derive(Debug)]
pub struct Entrance<'a> {
    /// The brokers.
    pub servers: &'a Servers,
    /// Where the client has come in.
    pub entry: Entry<'a>,
    /// What a client must be.
    pub demand: Demand<'a>,
    /// What it has presented already, by opening a WebSocket.
    pub presented: Presented,
    /// Whether its address may ask for more, if that was looked at with the opening.
    pub counted: Option<Result<(), Overrun>>,
    /// How much each client may ask for, a CONNECT and the session after it being one request.
    pub quotas: Option<&'a Quotas>,
}

/// Serves one MQTT client, on a connection of its own or inside a WebSocket.
pub async fn serve<C: Transport>(
    client: C,
    connection: &Connection,
    edge: &Edge,
    entrance: Entrance<'_>,
    lifecycle: Remote,
) {
    let Entrance {
        servers,
        entry,
        demand,
        presented,
        counted,
        quotas,
    } = entrance;
    let session = Session {
        connection,
        edge,
        servers,
        entry,
        demand,
        counted,
        quotas,
    };
    if let Err(refused) = session.run(client, presented, lifecycle).await {
        session.refuse(refused).await;
    }
}

struct Session<'a> {
    connection: &'a Connection,
    edge: &'a Edge,
    servers: &'a Servers,
    entry: Entry<'a>,
    demand: Demand<'a>,
    counted: Option<Result<(), Overrun>>,
    quotas: Option<&'a Quotas>,
}

/// A client that gets no further than its CONNECT.
struct Refused<C> {
    client: C,
    failure: Failure,
    asked: Option<Asked>,
}

/// What the relay needs to know of a CONNECT that has passed.
struct Opened {
    broker: Broker,
    busy: Busy,
    asked: Asked,
    keep_alive: u16,
    auth: bool,
    /// What the client was admitted by.
    standing: Standing,
    /// What the session counts as while it lasts.
    places: [Option<quota::Place>; 2],
}

impl Session<'_> {
    async fn run<C: Transport>(
        &self,
        mut client: C,
        presented: Presented,
        lifecycle: Remote,
    ) -> Result<(), Refused<C>> {
        let buffer = match self.read_connect(&mut client, lifecycle.clone()).await {
            Ok(buffer) => buffer,
            Err(failure) => {
                return Err(Refused {
                    client,
                    failure,
                    asked: None,
                });
            }
        };
        let connect = match Connect::read(&buffer, &self.limits()) {
            Ok(Progress::Complete(connect)) => connect,
            Ok(Progress::NeedMore) => {
                return Err(Refused {
                    client,
                    failure: Failure::Gone,
                    asked: None,
                });
            }
            Err(error) => {
                return Err(Refused {
                    client,
                    failure: error.into(),
                    asked: None,
                });
            }
        };
        match self.open(&connect, presented).await {
            Ok(opened) => {
                let rest = buffer.get(connect.as_bytes().len()..);
                let rest = rest.unwrap_or_default().to_vec();
                // A session may last, and its CONNECT is as large as its client likes, and holds a secret.
                drop(buffer);
                self.relay(client, opened, rest, lifecycle).await;
                Ok(())
            }
            Err(failure) => Err(Refused {
                client,
                failure,
                asked: Some(self.asked(&connect)),
            }),
        }
    }

    /// Reads until the CONNECT is complete, however it is split, or cannot become one; or until the
    /// client's right to send one has ended, which goes before what it sends.
    async fn read_connect(
        &self,
        client: &mut impl Transport,
        lifecycle: Remote,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let limit = self.edge.settings.connect_timeout;
        let complete = async {
            let mut buffer = Zeroizing::new(Vec::with_capacity(512));
            loop {
                let read = client.read_buf(&mut *buffer).await;
                if read.map_err(Failure::Broken)? == 0 {
                    return Err(Failure::Gone);
                }
                if let Progress::Complete(_) = Connect::read(&buffer, &self.limits())? {
                    return Ok(buffer);
                }
            }
        };
        tokio::select! {
            biased;
            failure = self.loss_of_right(lifecycle) => Err(failure),
            read = tokio::time::timeout(limit, complete) => {
                read.unwrap_or(Err(Failure::Timeout(limit)))
            }
        }
    }

    /// Waits for an announcement after which this client may not begin a session.
    async fn loss_of_right(&self, mut lifecycle: Remote) -> Failure {
        loop {
            match self.verdict(lifecycle.changed().await, None) {
                None => {}
                Some(Ended::Draining) => return Failure::Draining,
                Some(
                    Ended::Untrusted
                    | Ended::Expired
                    | Ended::Overdue
                    | Ended::Silent
                    | Ended::Unanswered,
                ) => return Failure::Untrusted,
            }
        }
    }

    fn limits(&self) -> Limits {
        let settings = &self.edge.settings;
        Limits {
            max_packet: settings.max_connect,
            bridges: settings.bridges,
        }
    }

    fn asked(&self, connect: &Connect<'_>) -> Asked {
        Asked {
            version: connect.version(),
            reason_string: self.edge.settings.reason_strings
                && connect.request_problem_information(),
            maximum_packet_size: connect.maximum_packet_size(),
        }
    }

    /// Admits the CONNECT and takes it to a broker. Nothing of it leaves before it is admitted.
    async fn open(&self, connect: &Connect<'_>, presented: Presented) -> Result<Opened, Failure> {
        let auth = self.check_authentication_method(connect)?;
        let of_address = self.count_address().await?;
        let admission = self.admit(connect, presented).await?;
        let of_client = self.count_client(&admission).await?;
        let rewritten = rewrite(&admission, connect)?;
        let version = connect.version();
        let dialling = Broker::dial(self.servers, self.connection, &admission, version);
        let (mut broker, busy) = dialling.await?;
        let bytes = rewritten.as_ref().map_or(connect.as_bytes(), |bytes| bytes);
        let sending = send(&mut broker, bytes);
        tokio::time::timeout(self.servers.connect_timeout(), sending)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .inspect_err(|_| self.servers.note(&busy, Outcome::Faulty))
            .map_err(Failure::BrokerBroken)?;
        tracing::debug!(
            connection = %self.connection.id(), version = %connect.version(),
            keep_alive = connect.keep_alive(), "MQTT session opened"
        );
        Ok(Opened {
            broker,
            busy,
            asked: self.asked(connect),
            keep_alive: connect.keep_alive(),
            auth,
            standing: admission.into_standing(self.demand),
            places: [of_address, of_client],
        })
    }

    /// Counts the CONNECT of its address, before anything is asked about it, unless the opening of its
    /// WebSocket was.
    async fn count_address(&self) -> Result<Option<quota::Place>, Overrun> {
        if let Some(counted) = self.counted {
            return counted.map(|()| None);
        }
        match self.quotas.and_then(|quotas| quotas.address.as_ref()) {
            Some(quota) => self.count(quota, self.address()).await,
            None => Ok(None),
        }
    }

    /// Counts it of its client, once that is known.
    async fn count_client(&self, admission: &Admission) -> Result<Option<quota::Place>, Overrun> {
        let Some(quota) = self.quotas.and_then(|quotas| quotas.client.as_ref()) else {
            return Ok(None);
        };
        let key = admission.key(self.connection);
        self.count(quota, key.unwrap_or_else(|| self.address()))
            .await
    }

    async fn count(&self, quota: &Quota, key: Key) -> Result<Option<quota::Place>, Overrun> {
        let now = self.edge.clock.since_epoch();
        // On the heap, so that those who count nothing carry nothing of it.
        Box::pin(quota.admit(key, now)).await
    }

    fn address(&self) -> Key {
        Key::of_address(household(self.connection.remote().ip()))
    }

    /// Whether AUTH packets may pass.
    fn check_authentication_method(&self, connect: &Connect<'_>) -> Result<bool, Failure> {
        match connect.authentication_method() {
            None => Ok(false),
            Some(_) if self.edge.settings.enhanced_auth => Ok(true),
            Some(_) => Err(Failure::AuthenticationMethod),
        }
    }

    async fn admit(
        &self,
        connect: &Connect<'_>,
        mut presented: Presented,
    ) -> Result<Admission, Failure> {
        let gate = &self.edge.gate;
        let must_send = self.edge.settings.missing_password == MissingPassword::Refuse;
        match connect.password() {
            Some(password) => presented.add_password(password),
            None if must_send && gate.knows_by_certificate(self.demand, &presented) => {
                return Err(Refusal::NoCredential.into());
            }
            None => {}
        }
        if gate.looks_at(self.demand, &Place::ClientId) {
            presented.add_name(Place::ClientId, connect.client_id().as_bytes());
        }
        if gate.looks_at(self.demand, &Place::UserName)
            && let Some(name) = connect.user_name()
        {
            presented.add_name(Place::UserName, name.as_bytes());
        }
        let now = self.edge.clock.now();
        let admission = gate.admit(self.connection, self.demand, &presented, None, now);
        Ok(admission.await?)
    }

    async fn relay<C: Transport>(
        &self,
        client: C,
        opened: Opened,
        rest: Vec<u8>,
        lifecycle: Remote,
    ) {
        let active = &self.edge.metrics.mqtt_sessions_active;
        active.inc();
        self.relay_until_end(client, opened, rest, lifecycle).await;
        active.dec();
    }

    async fn relay_until_end<C: Transport>(
        &self,
        client: C,
        opened: Opened,
        rest: Vec<u8>,
        mut lifecycle: Remote,
    ) {
        let Opened {
            broker,
            busy,
            asked,
            keep_alive,
            auth,
            standing,
            places: _places,
        } = opened;
        let (tell, mut connack) = oneshot::channel();
        let up = Packets::of_client(asked, self.edge.settings.max_packet, auth);
        let down = Packets::of_broker(asked, auth, tell);
        // How long the client may be silent is known with the CONNACK.
        let mut relay = Relay::new(client, broker, up, down, Idle::Never).before_end(tell_of);
        let mut answer_by = Some(tokio::time::Instant::now() + self.edge.settings.connect_timeout);
        relay.begin_with(rest);
        let now = self.edge.clock.now();
        let certificate_left = self.connection.time_left(now);
        let token_left = standing.time_left(now);
        let (left, at_expiry) = match token_left {
            Some(left) if left < certificate_left => (left, Ended::Overdue),
            Some(_) | None => (certificate_left, Ended::Expired),
        };
        let expiry = tokio::time::sleep(left);
        tokio::pin!(expiry);
        let clock = &*self.edge.clock;
        let gate = &self.edge.gate;
        let mut lapse = gate.lapse(&standing, self.entry, self.connection, clock);
        let mut reconsidered = Lapse::never();
        let mut drain_at = None;
        loop {
            let ended = tokio::select! {
                biased;
                () = &mut expiry, if !relay.is_closing() => Some(at_expiry),
                refusal = &mut lapse, if !relay.is_closing() => Some(self.end(&refusal)),
                heard = lifecycle.changed(), if !relay.is_closing() => {
                    match self.verdict(heard, Some(&standing)) {
                        Some(Ended::Draining) => {
                            drain_at = Some(tokio::time::Instant::now() + self.share_of_drain());
                            None
                        }
                        None if heard != Announcement::Revoked => {
                            reconsidered = gate.reconsider(&standing, self.entry, clock.now());
                            None
                        }
                        verdict => verdict,
                    }
                }
                refusal = &mut reconsidered, if !relay.is_closing() => {
                    Some(self.would_not_be_opened(&refusal))
                }
                () = until(drain_at), if !relay.is_closing() => Some(Ended::Draining),
                answer = &mut connack, if answer_by.is_some() => {
                    answer_by = None;
                    let answer = answer.ok();
                    self.note_answer(&busy, answer);
                    let of_server = answer.and_then(|connack| connack.server_keep_alive);
                    relay.set_idle(idle(of_server.unwrap_or(keep_alive)));
                    None
                }
                () = until(answer_by), if !relay.is_closing() => {
                    answer_by = None;
                    self.note_silence(&busy, relay.downward());
                    Some(Ended::Unanswered)
                }
                // Last: it may use up the task's turn, and nothing else would be heard then.
                end = relay.run() => match end {
                    Some(end) => {
                        if answer_by.is_some() {
                            self.note_last_answer(&busy, connack.try_recv());
                        }
                        return self.report(&end);
                    }
                    None => Some(Ended::Silent),
                },
            };
            if let Some(ended) = ended {
                tracing::debug!(connection = %self.connection.id(), ?ended, "closing an MQTT session");
                relay.client_mut().end_with(ended.ending());
                relay.close(self.farewell(ended, relay.downward()));
            }
        }
    }

    /// Any answer is a sign of life, but one that says that there is none.
    fn note_answer(&self, busy: &Busy, connack: Option<Connack>) {
        let Some(connack) = connack else {
            self.edge.metrics.refused("upstream_failed");
            let (connection, broker) = (self.connection.id(), busy.server());
            tracing::warn!(%connection, broker, "the broker fails before it has sent a CONNACK");
            return self.servers.note(busy, Outcome::Faulty);
        };
        self.servers.note(
            busy,
            if connack.is_unavailable() {
                Outcome::Faulty
            } else {
                Outcome::Fine
            },
        );
    }

    /// The same if the session has ended already. Where there is none and the broker has not failed, the
    /// client has not waited for it.
    fn note_last_answer(&self, busy: &Busy, answer: Result<Connack, TryRecvError>) {
        match answer {
            Ok(connack) => self.note_answer(busy, Some(connack)),
            Err(TryRecvError::Closed) => self.note_answer(busy, None),
            Err(TryRecvError::Empty) => {}
        }
    }

    /// The broker has not answered in time: by its own fault, unless it has asked the client for more.
    fn note_silence(&self, busy: &Busy, packets: &Packets) {
        let connection = self.connection.id();
        if packets.has_asked() {
            tracing::info!(%connection, "an MQTT client does not finish its authentication");
            return;
        }
        self.servers.note(busy, Outcome::Faulty);
        self.edge.metrics.refused("upstream_timeout");
        tracing::warn!(%connection, broker = busy.server(), "the broker sends no CONNACK in time");
    }

    fn end(&self, error: &Refusal) -> Ended {
        self.edge.metrics.refused(error.code());
        tracing::warn!(%error, connection = %self.connection.id(), "closing an MQTT session");
        Ended::Untrusted
    }

    fn would_not_be_opened(&self, error: &Refusal) -> Ended {
        let connection = self.connection.id();
        tracing::warn!(%error, %connection, "closing an MQTT session that would not be opened any more");
        Ended::Untrusted
    }

    /// What an announcement means at once for this client. No handshake visits a session again, and no
    /// gate, so whether it would still be let in is asked here; but the gate, which may have to ask somebody
    /// else, is asked beside the traffic. One that has not come to the gate has no standing yet.
    fn verdict(&self, heard: Announcement, standing: Option<&Standing>) -> Option<Ended> {
        match heard {
            Announcement::Draining => return Some(Ended::Draining),
            Announcement::Reloaded | Announcement::Superseded | Announcement::Revoked => {}
        }
        let now = self.edge.clock.now();
        if let Some(standing) = standing
            && let Err(error) = self.edge.gate.check_revocation(standing, now)
        {
            return Some(self.end(&error));
        }
        if heard == Announcement::Revoked {
            return None;
        }
        if let Some(terminator) = &self.edge.terminator
            && let Err(error) = self.connection.check_again(now, &terminator.policies())
        {
            tracing::warn!(%error, "closing an MQTT session whose client is no longer trusted");
            return Some(Ended::Untrusted);
        }
        if standing.is_some() {
            return None;
        }
        let unchanged = self.edge.gate.check_unchanged(self.entry, self.demand);
        let refusal = unchanged.err()?;
        Some(self.would_not_be_opened(&refusal))
    }

    /// When in the drain this session ends: spread evenly, so that a fleet does not come back all
    /// at once. The last fifth is left for what is slow.
    fn share_of_drain(&self) -> Duration {
        let share = self.connection.id().share();
        self.edge.drain.load().timeout.mul_f64(share * 0.8)
    }

    /// Clients are told why as far as their version has words for it. The broker sees the connection end,
    /// as it would without a gateway.
    fn farewell(&self, ended: Ended, packets: &Packets) -> Farewell {
        use {ConnackReason as C, DisconnectReason as D};
        let drain = self.edge.drain.load();
        let reference = drain.server_reference.as_deref();
        let reference = reference.filter(|_| ended == Ended::Draining);
        let (before, behind) = match ended {
            Ended::Draining if reference.is_some() => (C::ServerMoved, D::ServerMoved),
            Ended::Draining => (C::ServerUnavailable, D::ServerShuttingDown),
            Ended::Expired | Ended::Untrusted => (C::NotAuthorized, D::NotAuthorized),
            Ended::Overdue => (C::NotAuthorized, D::MaximumConnectTime),
            Ended::Silent => (C::UnspecifiedError, D::KeepAliveTimeout),
            Ended::Unanswered => (C::ServerUnavailable, D::UnspecifiedError),
        };
        Farewell {
            client: packets.last_words(before, Some(behind), reference),
            upstream: Vec::new(),
        }
    }

    fn report(&self, end: &End) {
        let connection = self.connection.id();
        match end {
            End::Done => tracing::debug!(%connection, "MQTT session ended"),
            End::Breach(reason) => {
                self.edge.metrics.refused("mqtt_breach");
                tracing::info!(%connection, reason, "MQTT session ended: the client broke the protocol");
            }
            // Of what its packets travel in.
            End::Client(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.edge.metrics.refused("mqtt_breach");
                tracing::info!(%connection, %error, "MQTT session ended: the client broke the protocol");
            }
            End::Client(error) => tracing::debug!(%connection, %error, "an MQTT client broke off"),
            End::Upstream(error) => tracing::debug!(%connection, %error, "MQTT session broke off"),
        }
    }

    async fn refuse<C: Transport>(&self, refused: Refused<C>) {
        let Refused {
            mut client,
            failure,
            asked,
        } = refused;
        let connection = self.connection.id();
        let remote = self.connection.remote();
        self.edge.metrics.refused(failure.reason());
        if failure.is_upstreams() {
            tracing::warn!(%connection, reason = failure.reason(), "{failure}");
        } else {
            tracing::info!(%connection, %remote, reason = failure.reason(), "refused: {failure}");
        }
        let answer = failure.answer(asked, self.edge.settings.reason_strings);
        client.end_with(failure.ending());
        let_go(client, &answer.unwrap_or_default()).await;
    }
}

/// Why the gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Draining,
    /// The client's certificate has expired.
    Expired,
    /// Its token has.
    Overdue,
    Untrusted,
    Silent,
    /// The broker has sent no CONNACK.
    Unanswered,
}

impl Ended {
    fn ending(self) -> Ending {
        match self {
            Self::Draining | Self::Silent | Self::Unanswered => Ending::GoingAway,
            Self::Expired | Self::Overdue | Self::Untrusted => Ending::Refused,
        }
    }
}

fn tell_of(client: &mut impl Transport, cause: &Cause<Fault>) {
    client.end_with(match cause {
        Cause::Client(Fault::Packet(ScanFault::TooLarge { .. })) => Ending::TooLarge,
        Cause::Client(_) => Ending::Malformed,
        Cause::Upstream(_) => Ending::BrokerFailed,
    });
}

async fn send(broker: &mut Broker, bytes: &[u8]) -> io::Result<()> {
    broker.write_all(bytes).await?;
    broker.flush().await
}

/// One and a half times the keep alive (MQTT 5.0 §3.1.2.10); zero is none.
fn idle(keep_alive: u16) -> Idle {
    match keep_alive {
        0 => Idle::Never,
        seconds => Idle::Client(Duration::from_millis(u64::from(seconds) * 1500)),
    }
}

/// The CONNECT with what the client is known by as its password, where it has none or has shown its
/// token there, and with the user name that is bound to it; `None` if it goes as it is, byte for byte.
fn rewrite(
    admission: &Admission,
    connect: &Connect<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let password = password(admission, connect)?.filter(|password| {
        // The gate has compared them already; this is no secret any more.
        connect.password() != Some(*password)
    });
    let user_name = admission.user_name().map(Secret::expose);
    let user_name = user_name.filter(|name| connect.user_name() != Some(*name));
    if password.is_none() && user_name.is_none() {
        return Ok(None);
    }
    let rewritten = connect.rewrite(&Changes {
        password,
        user_name,
    })?;
    Ok(Some(Zeroizing::new(rewritten)))
}

/// What the client is known by, for the broker; `None` if its CONNECT says all, as one does that brings
/// an authentication method in place of a password (MQTT 5.0 §4.12): what authenticates its client at
/// the broker comes in AUTH packets.
fn password<'a>(
    admission: &'a Admission,
    connect: &Connect<'_>,
) -> Result<Option<&'a [u8]>, Failure> {
    if connect.authentication_method().is_some() && connect.password().is_none() {
        return Ok(None);
    }
    let secret = match admission.credential() {
        ClientCredential::Certificate(device) => device
            .client_secret()
            .map_err(Refusal::UnusableCertificate)?,
        ClientCredential::Secret(secret) => secret,
        ClientCredential::Bearer(token) => token,
        ClientCredential::Unchecked => return Ok(None),
    };
    Ok(Some(secret.expose().as_bytes()))
}

async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
