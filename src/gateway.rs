//! The composition root: settings in, a running gateway out. The only file that knows every room.
//!
//! One thread and one current-thread runtime for each worker, with listening sockets of its own
//! (`SO_REUSEPORT`): a connection stays on the core that accepted it, and what workers share is
//! read, not locked. Number and kind of runtimes are decided in [`Gateway::start`] alone.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Connection, ConnectionId, Gate, Handshake, Mode};
use crate::admin;
use crate::clock::Clock;
use crate::config::{ListenerSettings, Service, Settings};
use crate::credential::Presented;
use crate::http::{self, Edge, Protocol, Rules};
use crate::listener::{self, Arrival, Lifecycle, Remote};
use crate::mqtt;
use crate::route::RouteTable;
use crate::telemetry::{AccessLog, HandshakeResult, ListenerMetrics, Metrics};
use crate::tls::{
    self, Accepted, ClientAuth, HandshakeError, MinVersion, Policies, Resumed, Terminator, TlsError,
};
use crate::upstream::Upstream;

/// Why the gateway does not start, or does not take new settings.
#[derive(Debug, Error)]
pub enum StartError {
    /// Certificates or keys are unfit.
    #[error("listener \"{listener}\": {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// Whose address.
        what: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread or its runtime cannot be made.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
    /// Listeners cannot be added, removed or moved while the gateway runs.
    #[error("listeners have changed; restart to add, remove or move one")]
    ListenersChanged,
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Vec<(String, SocketAddr)>,
    admin: Option<SocketAddr>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// What all workers share.
#[derive(Debug)]
struct Shared {
    listeners: Vec<Arc<LiveListener>>,
    live: ArcSwap<Live>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    lifecycle: Arc<Lifecycle>,
    permits: Arc<Semaphore>,
    connection_ids: AtomicU64,
    tasks: TaskTracker,
}

/// One listener, for as long as the gateway runs.
#[derive(Debug)]
struct LiveListener {
    settings: ListenerSettings,
    /// `None` without TLS.
    terminator: Option<Arc<Terminator>>,
    metrics: ListenerMetrics,
}

/// What a reload replaces.
#[derive(Debug)]
struct Live {
    settings: Settings,
    /// In the order of the listeners.
    rules: Vec<Arc<Rules>>,
}

impl Gateway {
    /// Binds every address and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let policies = load_policies(&settings, &clock)?;
        let (sockets, addresses) = bind_listeners(&settings)?;
        let metrics = Arc::new(Metrics::default());
        let admin_socket = settings.admin.map(bind_admin).transpose()?;
        let admin = admin_socket.as_ref().map(local_address).transpose()?;
        warn_of_readable_secrets(&settings);

        let shared = Arc::new(Shared {
            listeners: live_listeners(&settings, policies, &clock, &metrics),
            access_log: settings
                .log
                .access
                .then(|| Arc::new(AccessLog::to_stdout(metrics.access_log_dropped.clone()))),
            lifecycle: Arc::default(),
            permits: Arc::new(Semaphore::new(settings.max_connections)),
            connection_ids: AtomicU64::new(first_connection_id()),
            tasks: TaskTracker::new(),
            live: ArcSwap::from_pointee(Live::new(settings, &addresses)),
            clock,
            metrics,
        });
        let mut gateway = Self {
            shared,
            addresses,
            admin,
            stop: CancellationToken::new(),
            threads: Vec::new(),
        };
        for sockets in sockets {
            gateway.spawn_worker(sockets)?;
        }
        if let Some(socket) = admin_socket {
            gateway.spawn_admin(socket)?;
        }
        Ok(gateway)
    }

    /// Where each listener listens, by its name.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// Where the admin listener listens, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Puts new settings in force for every connection from now on. Certificates and authorities
    /// are read anew, with new ticket keys. Connections that are open finish their requests and
    /// close; WebSockets stay if their client would still be admitted.
    ///
    /// # Errors
    /// [`StartError`]; the former settings stay in force then.
    pub fn reload(&self, settings: Settings) -> Result<(), StartError> {
        let outcome = self.replace(settings);
        self.shared.metrics.reloaded(outcome.is_ok());
        outcome
    }

    /// Counts a reload that has not come as far as settings: the configuration itself was at fault.
    pub fn reload_failed(&self) {
        self.shared.metrics.reloaded(false);
    }

    fn replace(&self, settings: Settings) -> Result<(), StartError> {
        let same = |(known, new): (&Arc<LiveListener>, &ListenerSettings)| {
            known.settings.name == new.name
                && known.settings.address == new.address
                && known.settings.tls.is_some() == new.tls.is_some()
        };
        let listeners = &self.shared.listeners;
        let unchanged = listeners.len() == settings.listeners.len()
            && listeners.iter().zip(&settings.listeners).all(same);
        if !unchanged {
            return Err(StartError::ListenersChanged);
        }
        let policies = load_policies(&settings, &self.shared.clock)?;
        warn_of_readable_secrets(&settings);
        for (listener, policies) in listeners.iter().zip(policies) {
            if let (Some(terminator), Some(policies)) = (&listener.terminator, policies) {
                terminator.replace(policies);
            }
        }
        let former = self
            .shared
            .live
            .swap(Arc::new(Live::new(settings.clone(), &self.addresses)));
        if former.settings.mode == settings.mode {
            self.shared.lifecycle.reloaded();
        } else {
            self.shared.lifecycle.superseded();
        }
        Ok(())
    }

    /// Accepts no more, lets what is in flight finish for at most `timeout`, and ends. Says how
    /// many connections had to be cut.
    pub async fn drain(mut self, timeout: Duration) -> usize {
        self.shared.lifecycle.drain();
        self.shared.tasks.close();
        let in_time = tokio::time::timeout(timeout, self.shared.tasks.wait()).await;
        let cut = if in_time.is_ok() {
            0
        } else {
            self.shared.tasks.len()
        };
        self.stop.cancel();
        for thread in std::mem::take(&mut self.threads) {
            // A worker that panicked has said so; there is nothing left to save of it.
            let _ = thread.join();
        }
        cut
    }

    fn spawn_worker(&mut self, sockets: Vec<std::net::TcpListener>) -> Result<(), StartError> {
        let worker = Arc::new(Worker {
            shared: Arc::clone(&self.shared),
            edges: Mutex::default(),
        });
        self.spawn(move |stop| worker.run(sockets, stop))
    }

    fn spawn_admin(&mut self, socket: std::net::TcpListener) -> Result<(), StartError> {
        let state = admin::State {
            metrics: Arc::clone(&self.shared.metrics),
            lifecycle: Arc::clone(&self.shared.lifecycle),
        };
        self.spawn(move |stop| async move {
            tokio::select! {
                outcome = admin::serve(socket, state) => {
                    if let Err(error) = outcome {
                        tracing::error!(%error, "the admin listener has ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        })
    }

    /// Runs a future to its end on a thread and a runtime of its own.
    fn spawn<F, Fut>(&mut self, run: F) -> Result<(), StartError>
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Worker)?;
        let stop = self.stop.clone();
        let thread = thread::Builder::new()
            .name("portcullis".into())
            .spawn(move || runtime.block_on(run(stop)))
            .map_err(StartError::Worker)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Live {
    fn new(settings: Settings, addresses: &[(String, SocketAddr)]) -> Self {
        let rules = addresses
            .iter()
            .map(|(name, address)| {
                Arc::new(Rules {
                    listener: name.clone(),
                    port: address.port(),
                    gate: Gate::new(settings.mode),
                    routes: RouteTable::for_listener(&settings.routes, name),
                    limits: settings.limits,
                })
            })
            .collect();
        Self { settings, rules }
    }
}

/// One thread's share of the work.
#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    edges: Mutex<Option<Edges>>,
}

/// One worker's edges, in the order of the listeners, and the settings that they were made of.
#[derive(Debug)]
struct Edges {
    made_of: Arc<Live>,
    edges: Vec<Arc<Edge>>,
}

impl Worker {
    async fn run(self: Arc<Self>, sockets: Vec<std::net::TcpListener>, stop: CancellationToken) {
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
        listener::accept_loop(&listener, &self.shared.permits, lifecycle.draining(), serve).await;
    }

    /// One connection up to the end of its handshake; what comes then is a task of its own, so that
    /// the handshake's state does not stay for as long as the connection lives.
    async fn serve(self: Arc<Self>, index: usize, arrival: Arrival) {
        // Before the rules are looked up, or a reload in between would never be heard of.
        let lifecycle = self.shared.lifecycle.subscribe();
        let (Some(listener), Some(edge)) = (self.shared.listeners.get(index), self.edge(index))
        else {
            return;
        };
        let counted = Counted::new(listener);
        let service = self.service(index);
        let Arrival {
            stream,
            remote,
            permit,
        } = arrival;
        let id = ConnectionId::next(&self.shared.connection_ids);
        let Some(terminator) = &listener.terminator else {
            let connection = Connection::new(id, remote, None);
            let speaker = Speaker {
                connection,
                edge,
                service,
                permit,
                lifecycle,
                counted,
            };
            self.shared
                .tasks
                .spawn(speaker.speak(stream, Protocol::Http1));
            return;
        };
        let accepted = match terminator.accept(stream).await {
            Ok(accepted) => accepted,
            Err(error) => return report_handshake(listener, remote, &error),
        };
        listener.metrics.handshake(match accepted.kind {
            Resumed::No => HandshakeResult::Full,
            Resumed::Yes => HandshakeResult::Resumed,
        });
        let protocol = match accepted.stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let Accepted {
            stream,
            peer,
            policy,
            policies,
            ..
        } = accepted;
        let connection = Connection::new(
            id,
            remote,
            Some(Handshake {
                peer,
                policy,
                policies,
            }),
        );
        tracing::debug!(
            connection = %id, %remote, listener = listener.settings.name,
            cert_fp_sha256 = connection.fingerprint(), "connected"
        );
        let speaker = Speaker {
            connection,
            edge,
            service,
            permit,
            lifecycle,
            counted,
        };
        self.shared.tasks.spawn(speaker.speak(stream, protocol));
    }

    /// What is spoken on a listener, under the settings in force.
    fn service(&self, index: usize) -> Service {
        let live = self.shared.live.load();
        live.settings
            .listeners
            .get(index)
            .map_or(Service::Http, |listener| listener.service)
    }

    /// This worker's edge for a listener, under the settings in force.
    fn edge(&self, index: usize) -> Option<Arc<Edge>> {
        let live = self.shared.live.load();
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let current = edges
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(&known.made_of, &live));
        if !current {
            let made_of = Arc::clone(&live);
            *edges = Some(Edges {
                edges: self.build_edges(&live),
                made_of,
            });
        }
        edges.as_ref()?.edges.get(index).cloned()
    }

    fn build_edges(&self, live: &Live) -> Vec<Arc<Edge>> {
        let shared = &self.shared;
        let upstreams: Arc<[_]> = live
            .settings
            .upstreams
            .iter()
            .cloned()
            .map(Upstream::new)
            .collect();
        let edge = |(rules, listener): (&Arc<Rules>, &Arc<LiveListener>)| {
            Arc::new(Edge {
                rules: Arc::clone(rules),
                upstreams: Arc::clone(&upstreams),
                mqtt: self.build_mqtt(live, listener),
                terminator: listener.terminator.clone(),
                clock: Arc::clone(&shared.clock),
                metrics: Arc::clone(&shared.metrics),
                routed: live
                    .settings
                    .routes
                    .iter()
                    .map(|r| shared.metrics.for_route(&r.name))
                    .collect(),
                unrouted: shared.metrics.for_route(""),
                access_log: shared.access_log.clone(),
                tasks: shared.tasks.clone(),
            })
        };
        live.rules.iter().zip(&shared.listeners).map(edge).collect()
    }

    fn build_mqtt(&self, live: &Live, listener: &LiveListener) -> mqtt::Edge {
        mqtt::Edge {
            gate: Gate::new(live.settings.mode),
            settings: live.settings.mqtt.clone(),
            drain_timeout: live.settings.drain_timeout,
            terminator: listener.terminator.clone(),
            clock: Arc::clone(&self.shared.clock),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }
}

/// A connection that is ready to speak its protocol.
struct Speaker {
    connection: Connection,
    edge: Arc<Edge>,
    service: Service,
    permit: OwnedSemaphorePermit,
    lifecycle: Remote,
    counted: Counted,
}

impl Speaker {
    async fn speak<IO>(self, io: IO, protocol: Protocol)
    where
        IO: mqtt::Transport + Send + 'static,
    {
        let Self {
            connection,
            edge,
            service,
            permit,
            lifecycle,
            counted,
        } = self;
        match service {
            Service::Http => http::serve(io, protocol, edge, connection, permit, lifecycle).await,
            Service::Mqtt(upstream) => {
                if let Some(upstream) = edge.upstreams.get(upstream) {
                    let nothing = Presented::nothing();
                    let servers = upstream.servers();
                    mqtt::serve(io, &connection, &edge.mqtt, servers, nothing, lifecycle).await;
                }
                drop(permit);
            }
        }
        drop(counted);
    }
}

/// Counts a connection from its acceptance to its end, tunnels apart.
struct Counted(Arc<LiveListener>);

impl Counted {
    fn new(listener: &Arc<LiveListener>) -> Self {
        listener.metrics.accepted.inc();
        listener.metrics.active.inc();
        Self(Arc::clone(listener))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.active.dec();
    }
}

/// What the policies of every listener are made of, read from the files that the settings name.
///
/// # Errors
/// [`StartError::Tls`] for the first that is unfit.
pub fn load_policies(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Option<Policies>>, StartError> {
    let load = |listener: &ListenerSettings| {
        let policies = listener.tls.as_ref().map(|tls| Policies::load(tls, clock));
        policies.transpose().map_err(|source| StartError::Tls {
            listener: listener.name.clone(),
            source: Box::new(source),
        })
    };
    settings.listeners.iter().map(load).collect()
}

/// Everything that is wrong with the files that the settings name, each fault once.
pub fn problems(settings: &Settings, clock: &Arc<dyn Clock>) -> Vec<StartError> {
    let mut known = HashSet::new();
    let mut problems = Vec::new();
    for listener in &settings.listeners {
        for tls in listener.tls.iter().flat_map(tls::Settings::each) {
            if let Err(source) = Policies::load(&tls, clock)
                && known.insert(source.to_string())
            {
                let listener = listener.name.clone();
                problems.push(StartError::Tls {
                    listener,
                    source: Box::new(source),
                });
            }
        }
    }
    problems
}

fn live_listeners(
    settings: &Settings,
    policies: Vec<Option<Policies>>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Vec<Arc<LiveListener>> {
    let terminator = |policies| {
        Arc::new(Terminator::new(
            policies,
            settings.handshake_timeout,
            Arc::clone(clock),
        ))
    };
    let live = |(listener, policies): (&ListenerSettings, Option<Policies>)| {
        Arc::new(LiveListener {
            terminator: policies.map(terminator),
            metrics: metrics.for_listener(&listener.name),
            settings: listener.clone(),
        })
    };
    settings.listeners.iter().zip(policies).map(live).collect()
}

/// The sockets of each worker, in the order of the listeners, and the listeners' addresses.
type Sockets = (Vec<Vec<std::net::TcpListener>>, Vec<(String, SocketAddr)>);

fn bind_listeners(settings: &Settings) -> Result<Sockets, StartError> {
    let mut workers: Vec<Vec<_>> = (0..settings.workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for listener in &settings.listeners {
        let mut address = listener.address;
        probe(&listener.name, address)?;
        for worker in &mut workers {
            let socket = bind(&listener.name, address)?;
            // Port 0 becomes a real one with the first socket; the others share that.
            address = local_address(&socket)?;
            worker.push(socket);
        }
        addresses.push((listener.name.clone(), address));
    }
    Ok((workers, addresses))
}

fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    probe("admin", address)?;
    bind("admin", address)
}

fn probe(what: &str, address: SocketAddr) -> Result<(), StartError> {
    listener::probe(address).map_err(|source| bind_error(what, address, source))
}

fn bind(what: &str, address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    listener::bind(address).map_err(|source| bind_error(what, address, source))
}

fn bind_error(what: &str, address: SocketAddr, source: io::Error) -> StartError {
    StartError::Bind {
        what: what.to_owned(),
        address,
        source,
    }
}

fn local_address(socket: &std::net::TcpListener) -> Result<SocketAddr, StartError> {
    socket.local_addr().map_err(StartError::Worker)
}

/// TLS 1.2 sends the client's certificate in clear (RFC 5246 §7.4.6), and with it the CN.
fn warn_of_readable_secrets(settings: &Settings) {
    let readable = settings.mode == Mode::Certificate
        && settings
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .flat_map(|tls| &tls.policies)
            .any(|policy| {
                policy.min_version == MinVersion::Tls12 && policy.client_auth != ClientAuth::Off
            });
    if readable {
        tracing::warn!(
            "tls.min_version = \"1.2\": a client that speaks TLS 1.2 sends its certificate, and so \
             the client secret in its CN, unencrypted"
        );
    }
}

fn report_handshake(listener: &LiveListener, remote: SocketAddr, error: &HandshakeError) {
    let name = &listener.settings.name;
    let result = match error {
        HandshakeError::Timeout(_) => HandshakeResult::Timeout,
        _ if error.certificate().is_some() => HandshakeResult::Certificate,
        HandshakeError::NoServerName | HandshakeError::Io(_) | HandshakeError::Peer(_) => {
            HandshakeResult::Failed
        }
    };
    listener.metrics.handshake(result);
    match error.certificate() {
        Some(cause) => tracing::warn!(%remote, listener = name, "{cause}"),
        // Scanners and health checks make noise of this kind all day.
        None => tracing::debug!(%remote, listener = name, %error, "handshake failed"),
    }
}

/// A random place to start from, so that request ids of two runs differ.
fn first_connection_id() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness ids begin at zero: they name, they do not protect.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
