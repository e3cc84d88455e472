//! The numbers behind `/metrics`, in Prometheus' text format (OpenMetrics 1.0).
//!
//! No label holds a client's name, address or secret, so their number is bounded by the
//! configuration.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::log;

/// Every metric of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Family<ListenerLabel, Counter>,
    active: Family<ListenerLabel, Gauge>,
    shed: Family<ShedLabels, Counter>,
    handshakes: Family<HandshakeLabels, Counter>,
    certificates: Family<PolicyLabels, Gauge>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabel, Counter>,
    limited: Family<RouteLabel, Counter>,
    reloads: Family<ReloadLabel, Counter>,
    servers_in_service: Family<ServerLabels, Gauge>,
    servers_busy: Family<ServerLabels, Gauge>,
    server_failures: Family<ServerLabels, Counter>,
    server_ejections: Family<ServerLabels, Counter>,
    upstream_overloads: Family<UpstreamLabel, Counter>,
    upstream_retries: Family<UpstreamLabel, Counter>,
    upstream_retries_denied: Family<UpstreamLabel, Counter>,
    callouts: Family<CalloutLabels, Counter>,
    tokens: Family<TokenLabel, Counter>,
    token_evictions: Counter,
    token_revocations: Gauge,
    key_fetches: Family<FetchLabels, Counter>,
    server_checks_failed: Family<ServerLabels, Counter>,
    /// WebSockets open now.
    pub websockets_active: Gauge,
    /// MQTT sessions open now.
    pub mqtt_sessions_active: Gauge,
    /// Lines of the access log that were dropped because its reader was too slow, or they could not be written.
    pub access_log_dropped: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    listener: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    listener: String,
    policy: String,
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeResult {
    /// Done, with the client's key proven now.
    Full,
    /// Done, by a ticket.
    Resumed,
    /// The client's certificate was refused.
    Certificate,
    /// Not done in time.
    Timeout,
    /// Anything else: no common version, a broken connection, noise.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShedLabels {
    listener: String,
    reason: &'static str,
}

/// Why a connection was turned away before anything was read of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// There are as many as there may be.
    Connections,
    /// Its address has as many as one may have.
    Address,
    /// As many handshakes are under way as may be.
    Handshakes,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    provider: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    upstream: String,
    server: String,
}

/// The metrics of one server behind the gateway, looked up once.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// 1 while it is in service, 0 while it is left out.
    pub in_service: Gauge,
    /// Requests, WebSockets and sessions that it is busy with.
    pub busy: Gauge,
    /// Connections and requests that it has failed.
    pub failures: Counter,
    /// How many times it was left out because it fails.
    pub ejections: Counter,
    /// How many times it was asked whether it is well, and was not.
    pub checks_failed: Counter,
}

/// The metrics of a group of servers, looked up once.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// Requests, WebSockets and sessions that no server had room for.
    pub overloads: Counter,
    /// Requests that were sent once more.
    pub retries: Counter,
    /// Requests that were not, because too many were.
    pub retries_denied: Counter,
}

/// The metrics of one listener, looked up once.
#[derive(Debug)]
pub struct ListenerMetrics {
    accepted: Counter,
    active: Gauge,
    handshakes: [Counter; 5],
    shed: [Counter; 3],
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ListenerMetrics {
    /// Counts a connection that has been accepted, and is open from now on.
    #[must_use]
    pub fn opened(&self) -> OpenConnection {
        self.accepted.inc();
        self.active.inc();
        OpenConnection(self.active.clone())
    }

    /// Counts a handshake that ended so.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes[result as usize].inc();
    }

    /// Counts a connection that was turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CalloutLabels {
    callout: String,
    result: &'static str,
}

/// The metrics of one call-out, looked up once.
#[derive(Debug, Clone, Default)]
pub struct CalloutMetrics {
    /// Remembered yeses.
    pub hits: Counter,
    /// Remembered noes.
    pub refused_hits: Counter,
    /// Questions that were answered with yes.
    pub allowed: Counter,
    /// Questions that were answered with no.
    pub refused: Counter,
    /// Questions that were not answered.
    pub undecided: Counter,
}

/// The metrics of tokens, looked up once.
#[derive(Debug, Clone, Default)]
pub struct TokenMetrics {
    /// Tokens that were known already.
    pub hits: Counter,
    /// Tokens that were known as bad.
    pub refused_hits: Counter,
    /// Tokens that were verified anew.
    pub misses: Counter,
    /// Tokens that were forgotten to make room.
    pub evictions: Counter,
    /// Entries of the list of revoked tokens.
    pub revocations: Gauge,
    fetches: Family<FetchLabels, Counter>,
}

impl TokenMetrics {
    /// Counts a fetch of the keys of `provider`.
    pub fn fetched(&self, provider: &str, ok: bool) {
        let labels = FetchLabels {
            provider: provider.to_owned(),
            result: if ok { "ok" } else { "error" },
        };
        self.fetches.get_or_create(&labels).inc();
    }
}

/// The metrics of one route, looked up once: counting is then a few additions.
#[derive(Debug)]
pub struct RequestMetrics {
    by_class: [Counter; 5],
    duration: Histogram,
}

impl RequestMetrics {
    /// Counts one request answered with `status` after `seconds`.
    pub fn observe(&self, status: u16, seconds: f64) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
        self.duration.observe(seconds);
    }
}

fn policy_labels(listener: &str, policy: &str) -> PolicyLabels {
    PolicyLabels {
        listener: listener.to_owned(),
        policy: policy.to_owned(),
    }
}

fn server_labels(upstream: &str, server: &str) -> ServerLabels {
    ServerLabels {
        upstream: upstream.to_owned(),
        server: server.to_owned(),
    }
}

fn histogram() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("portcullis"),
            accepted: Family::default(),
            active: Family::default(),
            shed: Family::default(),
            handshakes: Family::default(),
            certificates: Family::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            refusals: Family::default(),
            limited: Family::default(),
            reloads: Family::default(),
            servers_in_service: Family::default(),
            servers_busy: Family::default(),
            server_failures: Family::default(),
            server_ejections: Family::default(),
            upstream_overloads: Family::default(),
            upstream_retries: Family::default(),
            upstream_retries_denied: Family::default(),
            callouts: Family::default(),
            tokens: Family::default(),
            token_evictions: Counter::default(),
            token_revocations: Gauge::default(),
            key_fetches: Family::default(),
            server_checks_failed: Family::default(),
            websockets_active: Gauge::default(),
            mqtt_sessions_active: Gauge::default(),
            access_log_dropped: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "connections_accepted",
            "Connections accepted",
            self.accepted.clone(),
        );
        r.register(
            "connections_active",
            "Connections open now",
            self.active.clone(),
        );
        r.register(
            "connections_shed",
            "Connections turned away because there are too many, by reason",
            self.shed.clone(),
        );
        r.register(
            "tls_handshakes",
            "TLS handshakes by result",
            self.handshakes.clone(),
        );
        r.register(
            "certificate_not_after_seconds",
            "When the server's certificate of a TLS policy expires, in seconds since 1970",
            self.certificates.clone(),
        );
        r.register(
            "http_requests",
            "Requests by route and class of status",
            self.requests.clone(),
        );
        r.register(
            "http_request_duration_seconds",
            "From the end of the request's head to the end of the answer",
            self.durations.clone(),
        );
        r.register(
            "refusals",
            "Requests refused or failed, by reason",
            self.refusals.clone(),
        );
        r.register(
            "limited",
            "Requests and CONNECTs over the limits of a route or listener for one client or address",
            self.limited.clone(),
        );
        r.register(
            "websockets_active",
            "WebSockets open now",
            self.websockets_active.clone(),
        );
        r.register(
            "mqtt_sessions_active",
            "MQTT sessions open now",
            self.mqtt_sessions_active.clone(),
        );
        r.register(
            "upstream_server_in_service",
            "Whether a server is in service",
            self.servers_in_service.clone(),
        );
        r.register(
            "upstream_server_busy",
            "Requests, WebSockets and sessions that a server is busy with",
            self.servers_busy.clone(),
        );
        r.register(
            "upstream_server_failures",
            "Connections and requests that a server has failed",
            self.server_failures.clone(),
        );
        r.register(
            "upstream_server_ejections",
            "Times that a server was left out because it fails",
            self.server_ejections.clone(),
        );
        r.register(
            "upstream_overloads",
            "Requests, WebSockets and sessions refused because no server had room",
            self.upstream_overloads.clone(),
        );
        r.register(
            "upstream_retries",
            "Requests sent once more because a server has failed them",
            self.upstream_retries.clone(),
        );
        r.register(
            "upstream_retries_denied",
            "Requests not sent once more because too many were",
            self.upstream_retries_denied.clone(),
        );
        r.register(
            "upstream_server_checks_failed",
            "Health checks that a server has failed",
            self.server_checks_failed.clone(),
        );
        r.register(
            "config_reloads",
            "Reloads of the configuration",
            self.reloads.clone(),
        );
        r.register(
            "callout_decisions",
            "Decisions of call-outs, remembered or asked for",
            self.callouts.clone(),
        );
        r.register(
            "token_lookups",
            "Tokens that were known already, known as bad, or verified anew",
            self.tokens.clone(),
        );
        r.register(
            "token_evictions",
            "Tokens forgotten to make room for others",
            self.token_evictions.clone(),
        );
        r.register(
            "token_revocations",
            "Entries of the list of revoked tokens",
            self.token_revocations.clone(),
        );
        r.register(
            "token_key_fetches",
            "Fetches of a token provider's keys, by result",
            self.key_fetches.clone(),
        );
        r.register(
            "access_log_dropped",
            "Access log lines dropped because their reader was too slow or they could not be written",
            self.access_log_dropped.clone(),
        );
        r.register(
            "log_dropped",
            "Log lines dropped because their reader was too slow or they could not be written",
            log::DROPPED.clone(),
        );
    }

    /// The metrics of the listener named `listener`.
    #[must_use]
    pub fn for_listener(&self, listener: &str) -> ListenerMetrics {
        let label = ListenerLabel {
            listener: listener.to_owned(),
        };
        // In the order of `HandshakeResult`.
        let results = ["full", "resumed", "certificate", "timeout", "failed"];
        ListenerMetrics {
            accepted: self.accepted.get_or_create_owned(&label),
            active: self.active.get_or_create_owned(&label),
            handshakes: results.map(|result| {
                let labels = HandshakeLabels {
                    listener: listener.to_owned(),
                    result,
                };
                self.handshakes.get_or_create_owned(&labels)
            }),
            // In the order of `Shed`.
            shed: ["connections", "address", "handshakes"].map(|reason| {
                let labels = ShedLabels {
                    listener: listener.to_owned(),
                    reason,
                };
                self.shed.get_or_create_owned(&labels)
            }),
        }
    }

    /// When the certificate that a policy of `listener` shows expires.
    #[must_use]
    pub fn certificate(&self, listener: &str, policy: &str) -> Gauge {
        self.certificates
            .get_or_create_owned(&policy_labels(listener, policy))
    }

    /// Ends the metric of a policy that is configured no longer.
    pub fn forget_certificate(&self, listener: &str, policy: &str) {
        self.certificates.remove(&policy_labels(listener, policy));
    }

    /// The metrics of the route named `route`; the empty name is for requests without one.
    #[must_use]
    pub fn for_route(&self, route: &str) -> RequestMetrics {
        let counter = |status| {
            let labels = RequestLabels {
                route: route.to_owned(),
                status,
            };
            self.requests.get_or_create_owned(&labels)
        };
        RequestMetrics {
            by_class: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(counter),
            duration: self.durations.get_or_create_owned(&RouteLabel {
                route: route.to_owned(),
            }),
        }
    }

    /// Counts what is over the limits of `route`, or of a listener that has none.
    #[must_use]
    pub fn limited(&self, route: &str) -> Counter {
        let route = route.to_owned();
        self.limited.get_or_create_owned(&RouteLabel { route })
    }

    /// The metrics of `server`, one of `upstream`.
    #[must_use]
    pub fn for_server(&self, upstream: &str, server: &str) -> ServerMetrics {
        let labels = server_labels(upstream, server);
        ServerMetrics {
            in_service: self.servers_in_service.get_or_create_owned(&labels),
            busy: self.servers_busy.get_or_create_owned(&labels),
            failures: self.server_failures.get_or_create_owned(&labels),
            ejections: self.server_ejections.get_or_create_owned(&labels),
            checks_failed: self.server_checks_failed.get_or_create_owned(&labels),
        }
    }

    /// Ends the metrics of a server that is configured no longer.
    pub fn forget_server(&self, upstream: &str, server: &str) {
        let labels = server_labels(upstream, server);
        self.servers_in_service.remove(&labels);
        self.servers_busy.remove(&labels);
        self.server_failures.remove(&labels);
        self.server_ejections.remove(&labels);
        self.server_checks_failed.remove(&labels);
    }

    /// The metrics of `upstream` as a whole.
    #[must_use]
    pub fn for_upstream(&self, upstream: &str) -> UpstreamMetrics {
        let upstream = upstream.to_owned();
        let label = UpstreamLabel { upstream };
        UpstreamMetrics {
            overloads: self.upstream_overloads.get_or_create_owned(&label),
            retries: self.upstream_retries.get_or_create_owned(&label),
            retries_denied: self.upstream_retries_denied.get_or_create_owned(&label),
        }
    }

    /// Ends the metrics of an upstream that is configured no longer.
    pub fn forget_upstream(&self, upstream: &str) {
        let upstream = upstream.to_owned();
        let label = UpstreamLabel { upstream };
        self.upstream_overloads.remove(&label);
        self.upstream_retries.remove(&label);
        self.upstream_retries_denied.remove(&label);
    }

    /// The metrics of the call-out of this name.
    #[must_use]
    pub fn for_callout(&self, name: &str) -> CalloutMetrics {
        let counter = |result| {
            let callout = name.to_owned();
            let labels = CalloutLabels { callout, result };
            self.callouts.get_or_create_owned(&labels)
        };
        CalloutMetrics {
            hits: counter("hit"),
            refused_hits: counter("refused_hit"),
            allowed: counter("allowed"),
            refused: counter("refused"),
            undecided: counter("undecided"),
        }
    }

    /// The metrics of tokens.
    #[must_use]
    pub fn for_tokens(&self) -> TokenMetrics {
        let counter = |result| self.tokens.get_or_create_owned(&TokenLabel { result });
        TokenMetrics {
            hits: counter("hit"),
            refused_hits: counter("refused_hit"),
            misses: counter("miss"),
            evictions: self.token_evictions.clone(),
            revocations: self.token_revocations.clone(),
            fetches: self.key_fetches.clone(),
        }
    }

    /// Counts a request that was refused or failed for `reason`, a stable name.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&RefusalLabel { reason }).inc();
    }

    /// Counts a reload of the configuration.
    pub fn reloaded(&self, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.reloads.get_or_create(&ReloadLabel { result }).inc();
    }

    /// All of them as text.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
