//! The private listener: liveness, readiness and metrics. It is given handles to read and changes
//! nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::listener::Lifecycle;
use crate::telemetry::Metrics;

/// What the admin listener may read.
#[derive(Debug, Clone)]
pub struct State {
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway drains.
    pub lifecycle: Arc<Lifecycle>,
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
