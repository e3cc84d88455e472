//! One worker: its accept loops, its connections, and its share of what serves them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Live, LiveListener, Shared};
use crate::access::{Connection, ConnectionId, Handshake};
use crate::config::{ListenerSettings, Service};
use crate::credential::Presented;
use crate::http::{self, Alarms, Edge, Protocol, Rules};
use crate::listener::crowd::{Crowd, CrowdLimits, Presence, turn_away};
use crate::listener::proxied::{self, Ends, HeaderError, Proxies};
use crate::listener::{self, Arrival, Permit, Remote};
use crate::mqtt;
use crate::socket::Socket;
use crate::telemetry::{HandshakeResult, Shed};
use crate::tls::{Accepted, HandshakeError, Resumed};
use crate::upstream::Upstream;

/// One thread's share of the work.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    desks: Mutex<Option<Desks>>,
}

/// What one worker serves its listeners with, and the settings that it was made of.
#[derive(Debug)]
struct Desks {
    made_of: Arc<Live>,
    /// In the order of the listeners.
    desks: Vec<Desk>,
}

/// What one worker serves one listener with; both parts are of the same settings.
#[derive(Debug, Clone)]
struct Desk {
    edge: Arc<Edge>,
    service: Service,
    proxies: Proxies,
    /// How long a peer may take to say whom it connects for.
    header_timeout: Duration,
    crowd: CrowdLimits,
}

impl Desk {
    /// The ends of the connection as its client sees them.
    async fn ends(&self, stream: &mut TcpStream, ends: Ends) -> Result<Ends, HeaderError> {
        if self.proxies.contain(ends.remote.ip()) {
            proxied::read(stream, ends, self.header_timeout).await
        } else {
            Ok(ends)
        }
    }

    /// Counts a connection with these ends, as it has come and as it is from, among those of its
    /// client's address. A proxy that connects for its own sake is no client.
    fn join(&self, crowd: &Crowd, come: Ends, from: Ends) -> Result<Option<Presence>, Shed> {
        if come == from && self.proxies.contain(come.remote.ip()) {
            return Ok(None);
        }
        crowd.join(from.remote.ip(), self.crowd.per_address)
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            desks: Mutex::default(),
        }
    }

    pub(super) async fn run(
        self: Arc<Self>,
        sockets: Vec<std::net::TcpListener>,
        stop: CancellationToken,
    ) {
        for (index, socket) in sockets.into_iter().enumerate() {
            tokio::spawn(Arc::clone(&self).accept(index, socket));
        }
        stop.cancelled().await;
    }

    async fn accept(self: Arc<Self>, index: usize, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot listen"),
        };
        let mut lifecycle = self.shared.lifecycle.subscribe();
        let serve = |arrival| {
            let connection = Arc::clone(&self).serve(index, arrival);
            self.shared.tasks.spawn(connection);
        };
        listener::accept_loop(&listener, lifecycle.draining(), serve).await;
    }

    /// One connection up to the end of its handshake; what comes then is a task of its own, so that
    /// the handshake's state does not stay for as long as the connection lives.
    async fn serve(self: Arc<Self>, index: usize, arrival: Arrival) {
        // Before the rules are looked up, or a reload in between would never be heard of.
        let lifecycle = self.shared.lifecycle.subscribe();
        let (Some(listener), Some(desk)) = (self.shared.listeners.get(index), self.desk(index))
        else {
            return;
        };
        let open = listener.metrics.opened();
        let Arrival { mut stream, remote } = arrival;
        let crowd = &self.shared.crowd;
        let mut permit = match crowd.enter(desk.crowd.connections) {
            Ok(place) => Permit::new(place, open),
            Err(reason) => return shed(crowd, listener, stream, remote, reason).await,
        };
        // Fails only if the client is gone.
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let come = Ends { remote, local };
        let from = match desk.ends(&mut stream, come).await {
            Ok(ends) => ends,
            Err(error) => return report_header(listener, remote, &error),
        };
        let Ends { remote, local } = from;
        match desk.join(crowd, come, from) {
            Ok(presence) => permit.is_from(presence),
            Err(reason) => return shed(crowd, listener, stream, remote, reason).await,
        }
        let most_handshakes = desk.crowd.handshakes;
        let id = ConnectionId::next(&self.shared.connection_ids);
        let speaker = |handshake, peer| {
            let connection = Connection::new(id, remote, local, handshake, peer);
            Speaker {
                connection,
                desk,
                permit,
                lifecycle,
            }
        };
        let Some(terminator) = &listener.terminator else {
            let speaking = speaker(None, None).speak(Socket::from(stream), Protocol::Http1);
            self.shared.tasks.spawn(speaking);
            return;
        };
        let handshaking = match crowd.begin_handshake(most_handshakes) {
            Ok(handshaking) => handshaking,
            Err(reason) => return shed(crowd, listener, stream, remote, reason).await,
        };
        let accepted = match terminator.accept(Socket::from(stream)).await {
            Ok(accepted) => accepted,
            Err(error) => return report_handshake(listener, remote, &error),
        };
        drop(handshaking);
        listener.metrics.handshake(match accepted.kind {
            Resumed::No => HandshakeResult::Full,
            Resumed::Yes => HandshakeResult::Resumed,
        });
        let protocol = match accepted.agreed.protocol {
            Some("h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let Accepted {
            stream,
            peer,
            policy,
            policies,
            kind,
            agreed,
        } = accepted;
        let handshake = Some(Handshake {
            policy,
            policies,
            kind,
            agreed,
        });
        let speaker = speaker(handshake, peer);
        tracing::debug!(
            connection = %id, %remote, listener = listener.settings.name,
            cert_fp_sha256 = speaker.connection.fingerprint(), "connected"
        );
        self.shared.tasks.spawn(speaker.speak(stream, protocol));
    }

    /// What this worker serves a listener with, under the settings in force.
    fn desk(&self, index: usize) -> Option<Desk> {
        let live = self.shared.live.load();
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        let current = desks
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(&known.made_of, &live));
        if !current {
            let made_of = Arc::clone(&live);
            *desks = Some(Desks {
                desks: self.build(&live),
                made_of,
            });
        }
        desks.as_ref()?.desks.get(index).cloned()
    }

    fn build(&self, live: &Live) -> Vec<Desk> {
        let shared = &self.shared;
        let settings = &live.settings;
        let upstreams: Arc<[_]> = live
            .groups
            .iter()
            .zip(&live.initiators)
            .map(|(group, tls)| Upstream::new(Arc::clone(group), tls.clone()))
            .collect();
        let edge = |rules: &Arc<Rules>, listener: &LiveListener, new: &ListenerSettings| {
            Arc::new(Edge {
                rules: Arc::clone(rules),
                upstreams: Arc::clone(&upstreams),
                mqtt: self.build_mqtt(live, listener, new),
                terminator: listener.terminator.clone(),
                clock: Arc::clone(&shared.clock),
                alarms: Alarms::default(),
                metrics: Arc::clone(&shared.metrics),
                routed: settings
                    .routes
                    .iter()
                    .map(|r| shared.metrics.for_route(&r.name))
                    .collect(),
                unrouted: shared.metrics.for_route(""),
                access_log: shared.access_log.clone(),
                tasks: shared.tasks.clone(),
            })
        };
        let desk = |((rules, listener), new): ((_, &Arc<LiveListener>), &ListenerSettings)| Desk {
            edge: edge(rules, listener, new),
            service: new.service,
            proxies: new.proxies.clone(),
            header_timeout: settings.handshake_timeout,
            crowd: settings.crowd,
        };
        live.rules
            .iter()
            .zip(&shared.listeners)
            .zip(&settings.listeners)
            .map(desk)
            .collect()
    }

    fn build_mqtt(
        &self,
        live: &Live,
        listener: &LiveListener,
        settings: &ListenerSettings,
    ) -> mqtt::Edge {
        mqtt::Edge {
            gate: live.gate.clone(),
            demand: settings.demand(),
            settings: live.settings.mqtt.clone(),
            quotas: live.quotas.of_listener(&settings.name),
            drain: Arc::clone(&self.shared.drain),
            terminator: listener.terminator.clone(),
            clock: Arc::clone(&self.shared.clock),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }
}

/// A connection that is ready to speak its protocol.
struct Speaker {
    connection: Connection,
    desk: Desk,
    permit: Permit,
    lifecycle: Remote,
}

impl Speaker {
    async fn speak<IO>(self, io: IO, protocol: Protocol)
    where
        IO: mqtt::Transport + Send + 'static,
    {
        let Self {
            connection,
            desk: Desk { edge, service, .. },
            permit,
            lifecycle,
        } = self;
        // Boxed, as each protocol is: what is moved from call to call takes its room in each of them, and a
        // connection that speaks one has no use for the other's.
        let io = Box::new(io);
        match service {
            Service::Http => {
                Box::pin(http::serve(
                    io, protocol, edge, connection, permit, lifecycle,
                ))
                .await;
            }
            Service::Mqtt(upstream) => {
                if let Some(upstream) = edge.upstreams.get(upstream) {
                    let entrance = mqtt::Entrance {
                        servers: upstream.servers(),
                        entry: edge.mqtt.demand.entry(),
                        demand: edge.mqtt.demand.demand(),
                        presented: Presented::nothing(),
                        counted: None,
                        quotas: Some(&edge.mqtt.quotas),
                    };
                    Box::pin(mqtt::serve(
                        io,
                        &connection,
                        &edge.mqtt,
                        entrance,
                        lifecycle,
                    ))
                    .await;
                }
                drop(permit);
            }
        }
    }
}

/// Turns a connection away before anything is spent on it. TLS and MQTT have no word for that before
/// the client's first one, so it is closed.
async fn shed(
    crowd: &Crowd,
    listener: &LiveListener,
    stream: TcpStream,
    remote: SocketAddr,
    reason: Shed,
) {
    listener.metrics.shed(reason);
    tracing::debug!(%remote, listener = listener.settings.name, ?reason, "turned away");
    let has_a_word = listener.terminator.is_none() && listener.settings.service == Service::Http;
    if has_a_word && let Some(_told) = crowd.tell() {
        turn_away(stream).await;
    }
}

/// A peer that is listed and does not speak the protocol is configured wrongly, on this side or that.
fn report_header(listener: &LiveListener, peer: SocketAddr, error: &HeaderError) {
    tracing::warn!(%peer, listener = listener.settings.name, "refused a peer of proxy_protocol_from: {error}");
}

fn report_handshake(listener: &LiveListener, remote: SocketAddr, error: &HandshakeError) {
    let name = &listener.settings.name;
    let result = match error {
        HandshakeError::Timeout(_) => HandshakeResult::Timeout,
        _ if error.certificate().is_some() => HandshakeResult::Certificate,
        HandshakeError::NoServerName
        | HandshakeError::PlainHttp
        | HandshakeError::Io(_)
        | HandshakeError::Peer(_) => HandshakeResult::Failed,
    };
    listener.metrics.handshake(result);
    match error.certificate() {
        Some(cause) => tracing::warn!(%remote, listener = name, "{cause}"),
        // Scanners and health checks make noise of this kind all day.
        None => tracing::debug!(%remote, listener = name, %error, "handshake failed"),
    }
}
