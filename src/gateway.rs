//! The composition root: settings in, a running gateway out. The only file that knows every room.
//!
//! One thread and one current-thread runtime for each worker, with listening sockets of its own
//! (`SO_REUSEPORT`): a connection stays on the core that accepted it, and what workers share is
//! read, not locked. Number and kind of runtimes are decided in [`Gateway::start`] alone.

mod fixed;
mod live;
mod load;
mod sockets;
mod worker;

use std::fmt::Display;
use std::mem::discriminant;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use arc_swap::{ArcSwap, ArcSwapOption};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use fixed::Fixed;
use live::{AllQuotas, Live, drain, groups, in_force, of_name};
pub use load::problems;
use sockets::{bind_admin, bind_listeners, local_address};
use worker::Worker;

use crate::access::{Gate, InForce, Mode};
use crate::admin;
use crate::assertion::{Asserter, AssertionError};
use crate::clock::Clock;
use crate::config::{ListenerSettings, Settings};
use crate::fetch::FetcherError;
use crate::listener::Lifecycle;
use crate::listener::crowd::Crowd;
use crate::mqtt;
use crate::telemetry::{AccessLog, ListenerMetrics, Metrics};
use crate::tls::{ClientAuth, MinVersion, Policies, PolicyError, Terminator, TlsError};
use crate::token::{ProviderError, RevocationError, Revocations, Verifier};

/// Why the gateway does not start, or does not take new settings.
#[derive(Debug, Error)]
pub enum StartError {
    /// Certificates or keys are unfit.
    #[error("{}", lines("", .0))]
    Tls(Vec<PolicyError>),
    /// The same, for TLS to servers.
    #[error("{}", lines(&format!("upstreams.{upstream}.tls."), .errors))]
    UpstreamTls {
        /// The upstream's name.
        upstream: String,
        /// What is wrong.
        errors: Vec<TlsError>,
    },
    /// A token provider cannot be used.
    #[error(transparent)]
    Token(#[from] ProviderError),
    /// The list of revoked tokens cannot be read.
    #[error("revocations.list: {0}")]
    Revocations(#[from] RevocationError),
    /// No assertions can be made.
    #[error("assertions.keys: {0}")]
    Assertions(#[from] AssertionError),
    /// A call-out cannot be made.
    #[error("callouts.{callout}.ca: {source}")]
    Callout {
        /// Its name.
        callout: String,
        /// What is wrong.
        source: FetcherError,
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
    /// Listeners cannot be added, removed, moved or given another protocol while the gateway runs.
    #[error("listeners have changed; restart to add, remove or move one, or change its protocol")]
    ListenersChanged,
}

/// Each on a line of its own, behind `prefix`.
fn lines<T: Display>(prefix: &str, errors: &[T]) -> String {
    let lines: Vec<String> = errors
        .iter()
        .map(|error| format!("{prefix}{error}"))
        .collect();
    lines.join("\n")
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
    /// What is as it was at the start, whatever `live` says.
    fixed: Fixed,
    /// What verifies tokens, for every connection whenever it began.
    tokens: Arc<ArcSwap<Verifier>>,
    /// Which of them hold no longer.
    revocations: Arc<Revocations>,
    /// What is demanded where, for those who have stayed.
    in_force: Arc<ArcSwap<InForce>>,
    /// The admin listener's settings in force.
    admin: Arc<ArcSwapOption<admin::Settings>>,
    /// Who signs assertions, if anybody gets them.
    asserter: Arc<ArcSwapOption<Asserter>>,
    /// How MQTT sessions end in a drain.
    drain: Arc<ArcSwap<mqtt::Drain>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    lifecycle: Arc<Lifecycle>,
    crowd: Crowd,
    connection_ids: AtomicU64,
    tasks: TaskTracker,
    /// `live` has been replaced.
    replaced: Notify,
}

/// One listener, for as long as the gateway runs.
#[derive(Debug)]
struct LiveListener {
    settings: ListenerSettings,
    /// `None` without TLS.
    terminator: Option<Arc<Terminator>>,
    metrics: ListenerMetrics,
}

impl Gateway {
    /// Binds every address and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let policies = load::policies(&settings, &clock)?;
        let initiators = load::initiators(&settings, &clock)?;
        let metrics = Arc::new(Metrics::default());
        let tokens = Verifier::load(&settings.tokens, None, &clock, metrics.for_tokens())?;
        let tokens = Arc::new(ArcSwap::from_pointee(tokens));
        let revocations = Arc::new(Revocations::new(metrics.for_tokens()));
        revocations.read(settings.tokens.revocations.as_ref(), clock.now())?;
        let callouts = load::callouts(&settings, None, &metrics)?;
        let asserter = load::asserter(&settings, None)?;
        let in_force = Arc::new(ArcSwap::from_pointee(in_force(&settings)));
        let bindings = Arc::clone(&settings.bindings);
        let gate = Gate::new(
            settings.mode,
            bindings,
            Arc::clone(&tokens),
            Arc::clone(&revocations),
            callouts,
            Arc::clone(&in_force),
        );
        let (sockets, addresses) = bind_listeners(&settings)?;
        let admin_settings = settings.admin.clone().map(Arc::new);
        let admin_address = settings.admin.as_ref().map(|admin| admin.address);
        let admin_socket = admin_address.map(bind_admin).transpose()?;
        let admin = admin_socket.as_ref().map(local_address).transpose()?;
        warn_of_readable_secrets(&settings);
        let groups = groups(&settings, &[], &metrics);
        let quotas = AllQuotas::new(&settings, None, &metrics);
        let live = Live::new(
            settings.clone(),
            gate,
            asserter.clone(),
            initiators,
            groups,
            quotas,
            &addresses,
        );

        let shared = Arc::new(Shared {
            listeners: live_listeners(&settings, policies, &clock, &metrics),
            access_log: settings
                .log
                .access
                .then(|| Arc::new(AccessLog::to_stdout(metrics.access_log_dropped.clone()))),
            lifecycle: Arc::default(),
            crowd: Crowd::default(),
            connection_ids: AtomicU64::new(first_connection_id()),
            tasks: TaskTracker::new(),
            replaced: Notify::new(),
            tokens,
            revocations,
            in_force,
            admin: Arc::new(ArcSwapOption::new(admin_settings)),
            asserter: Arc::new(ArcSwapOption::new(asserter)),
            drain: Arc::new(ArcSwap::from_pointee(drain(&settings))),
            live: ArcSwap::from_pointee(live),
            fixed: Fixed::of(&settings),
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
        gateway.spawn_keeper()?;
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

    /// How long a drain may take, by the settings in force.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.shared.live.load().settings.drain_timeout
    }

    /// Puts new settings in force for every connection from now on. Certificates and authorities
    /// are read anew, with new ticket keys. Connections that are open finish their requests and
    /// close; WebSockets and MQTT sessions stay if their client would still be admitted.
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
                && discriminant(&known.settings.service) == discriminant(&new.service)
        };
        let listeners = &self.shared.listeners;
        let unchanged = listeners.len() == settings.listeners.len()
            && listeners.iter().zip(&settings.listeners).all(same);
        if !unchanged {
            return Err(StartError::ListenersChanged);
        }
        let policies = load::policies(&settings, &self.shared.clock)?;
        let initiators = load::initiators(&settings, &self.shared.clock)?;
        let tokens = self.load_tokens(&settings)?;
        let callouts = load::callouts(
            &settings,
            Some(&self.shared.live.load()),
            &self.shared.metrics,
        )?;
        let asserter = load::asserter(&settings, self.shared.asserter.load().as_deref())?;
        // Last of what can fail: what it reads is in force from here on.
        let revocations = &self.shared.revocations;
        revocations.read(
            settings.tokens.revocations.as_ref(),
            self.shared.clock.now(),
        )?;
        warn_of_readable_secrets(&settings);
        for key in self.shared.fixed.differences(&Fixed::of(&settings)) {
            tracing::warn!(key, "has changed, which takes effect at a restart only");
        }
        for (listener, policies) in listeners.iter().zip(policies) {
            if let (Some(terminator), Some(policies)) = (&listener.terminator, policies) {
                let former = terminator.policies();
                let name = &listener.settings.name;
                show_certificates(&self.shared.metrics, name, Some(&former), &policies);
                terminator.replace(policies);
            }
        }
        let metrics = &self.shared.metrics;
        let former = self.shared.live.load_full();
        let groups = groups(&settings, &former.groups, metrics);
        let bindings = Arc::clone(&settings.bindings);
        let gate = Gate::new(
            settings.mode,
            bindings,
            Arc::clone(&self.shared.tokens),
            Arc::clone(revocations),
            callouts,
            Arc::clone(&self.shared.in_force),
        );
        let (in_force, drain) = (in_force(&settings), drain(&settings));
        let live = Live::new(
            settings.clone(),
            gate,
            asserter.clone(),
            initiators,
            groups.clone(),
            AllQuotas::new(&settings, Some(&former), metrics),
            &self.addresses,
        );
        // Before anybody is told to look: connections that are open ask these as well.
        self.shared.tokens.store(tokens);
        self.shared.in_force.store(Arc::new(in_force));
        self.shared.admin.store(settings.admin.map(Arc::new));
        self.shared.asserter.store(asserter);
        self.shared.drain.store(Arc::new(drain));
        self.shared.live.store(Arc::new(live));
        self.shared.replaced.notify_one();
        for group in &former.groups {
            group.retire(of_name(group.name(), &groups));
        }
        let is_same_door =
            former.settings.mode == settings.mode && former.settings.bindings == settings.bindings;
        if is_same_door {
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
        let worker = Arc::new(Worker::new(Arc::clone(&self.shared)));
        self.spawn(move |stop| worker.run(sockets, stop))
    }

    /// Looks after the servers of all upstreams and the keys of token providers, beside the
    /// workers.
    fn spawn_keeper(&mut self) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        self.spawn(move |stop| async move {
            while !stop.is_cancelled() {
                // Dropped, and so aborted, when the settings are replaced.
                let mut keepers = JoinSet::new();
                let live = shared.live.load_full();
                let tokens = shared.tokens.load_full();
                keepers.spawn(async move { tokens.keep().await });
                for (group, tls) in live.groups.iter().zip(&live.initiators) {
                    group.keep(tls.as_ref(), &mut keepers);
                }
                tokio::select! {
                    () = shared.replaced.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        })
    }

    fn load_tokens(&self, settings: &Settings) -> Result<Arc<Verifier>, StartError> {
        let former = self.shared.tokens.load_full();
        let metrics = self.shared.metrics.for_tokens();
        let clock = &self.shared.clock;
        let tokens = Verifier::load(&settings.tokens, Some(&former), clock, metrics)?;
        Ok(Arc::new(tokens))
    }

    fn spawn_admin(&mut self, socket: std::net::TcpListener) -> Result<(), StartError> {
        let shared = &self.shared;
        let state = admin::State {
            settings: Arc::clone(&shared.admin),
            asserter: Arc::clone(&shared.asserter),
            metrics: Arc::clone(&shared.metrics),
            lifecycle: Arc::clone(&shared.lifecycle),
            revocations: Arc::clone(&shared.revocations),
            clock: Arc::clone(&shared.clock),
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

fn live_listeners(
    settings: &Settings,
    policies: Vec<Option<Policies>>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Vec<Arc<LiveListener>> {
    let live = |(listener, policies): (&ListenerSettings, Option<Policies>)| {
        let terminator = policies.map(|policies| {
            show_certificates(metrics, &listener.name, None, &policies);
            Arc::new(Terminator::new(policies, Arc::clone(clock)))
        });
        Arc::new(LiveListener {
            terminator,
            metrics: metrics.for_listener(&listener.name),
            settings: listener.clone(),
        })
    };
    settings.listeners.iter().zip(policies).map(live).collect()
}

/// Shows when the certificates of a listener expire, and no longer that of a policy that is gone.
fn show_certificates(
    metrics: &Metrics,
    listener: &str,
    former: Option<&Policies>,
    policies: &Policies,
) {
    for (policy, until) in policies.certificates() {
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        metrics.certificate(listener, policy).set(until);
    }
    let former = former.into_iter().flat_map(Policies::certificates);
    for (policy, _) in former {
        if !policies.certificates().any(|(name, _)| name == policy) {
            metrics.forget_certificate(listener, policy);
        }
    }
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

/// A random place to start from, so that request ids of two runs differ.
fn first_connection_id() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness ids begin at zero: they name, they do not protect.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
