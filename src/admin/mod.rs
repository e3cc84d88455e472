//! The private listener: liveness, readiness, metrics and the keys of assertions for whoever reaches it,
//! and the list of revoked tokens for those whom the [`doorman`] lets in. All else it is given to read.

mod doorman;
mod revocations;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::assertion::{Asserter, KEY_SET_CACHING, KEY_SET_TYPE};
use crate::clock::Clock;
use crate::host::HostPattern;
use crate::listener::Lifecycle;
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::token::Revocations;

/// Where the listener is, and who may change anything through it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Names by which it is reached, besides addresses and `localhost`.
    pub hosts: Vec<HostPattern>,
    /// What those have to show who want more than liveness, readiness and metrics.
    pub secret: Option<Secret>,
}

/// What the admin listener works with.
#[derive(Debug, Clone)]
pub struct State {
    /// As the configuration in force has them; `None` if it has no admin listener.
    pub settings: Arc<ArcSwapOption<Settings>>,
    /// Who signs assertions; `None` if nobody gets any.
    pub asserter: Arc<ArcSwapOption<Asserter>>,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway drains; it is told of revocations.
    pub lifecycle: Arc<Lifecycle>,
    /// The list of revoked tokens.
    pub revocations: Arc<Revocations>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
}

/// Serves on `socket` until dropped.
///
/// # Errors
/// What the socket reports.
pub async fn serve(socket: std::net::TcpListener, state: State) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/.well-known/jwks.json", get(key_set))
        .merge(revocations::routes())
        .with_state(state);
    axum::serve(TcpListener::from_std(socket)?, router).await
}

/// The process lives.
async fn healthz() -> &'static str {
    "ok\n"
}

/// New connections are welcome; a load balancer stops sending them when they are not.
async fn readyz(Extract(state): Extract<State>) -> (StatusCode, &'static str) {
    if state.lifecycle.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn metrics(Extract(state): Extract<State>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match state.metrics.render() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

async fn key_set(Extract(state): Extract<State>) -> Response {
    let fields = [
        (CONTENT_TYPE, KEY_SET_TYPE),
        (CACHE_CONTROL, KEY_SET_CACHING),
    ];
    match &*state.asserter.load() {
        Some(asserter) => (fields, asserter.key_set()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
