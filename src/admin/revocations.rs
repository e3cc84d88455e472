//! `/revocations`: the list of revoked tokens, to be read, added to and taken from, in JSON.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State as Extract};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::State;
use super::doorman::{Denial, check, check_change};
use crate::token::{Added, Revocation, RevocationError};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/revocations", get(list).post(add))
        .route("/revocations/{id}", delete(lift))
}

async fn list(Extract(state): Extract<State>, headers: HeaderMap) -> Result<Response, Denial> {
    check(&state, &headers)?;
    let entries = state.revocations.entries(state.clock.now())?;
    let entries: Vec<Value> = entries.iter().map(shown).collect();
    Ok(answer(StatusCode::OK, &json!({ "revocations": entries })))
}

async fn add(Extract(state): Extract<State>, request: Request<Body>) -> Result<Response, Denial> {
    let (head, body) = request.into_parts();
    check_change(&state, &head.method, &head.headers)?;
    let revocation = Revocation::of_json(&read(body).await?)?;
    let shown = shown(&revocation);
    let id = revocation.id();
    let added = change(&state, move |state, now| {
        state.revocations.add(revocation, now)
    })
    .await?;
    tracing::warn!(id, "tokens were revoked through the admin listener");
    let status = match added {
        Added::New => StatusCode::CREATED,
        Added::Replaced => StatusCode::OK,
    };
    Ok(answer(status, &shown))
}

async fn lift(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Denial> {
    check_change(&state, &Method::DELETE, &headers)?;
    let wanted = id.clone();
    let was_there = change(&state, move |state, now| {
        state.revocations.lift(&wanted, now)
    })
    .await?;
    if !was_there {
        return Err(Denial::NoEntry);
    }
    tracing::warn!(id, "a revocation was lifted through the admin listener");
    Ok(StatusCode::NO_CONTENT)
}

/// Changes the list where waiting for a disk holds up nobody, and has those looked at who are there.
/// What has begun is carried out even if whoever has asked is gone.
#[expect(
    clippy::disallowed_methods,
    reason = "the admin listener has a runtime of its own, and no worker waits for it"
)]
async fn change<T: Send + 'static>(
    state: &State,
    change: impl FnOnce(&State, u64) -> Result<T, RevocationError> + Send + 'static,
) -> Result<T, Denial> {
    let state = state.clone();
    let changing = tokio::task::spawn_blocking(move || {
        let outcome = change(&state, state.clock.now());
        if outcome.is_ok() {
            state.lifecycle.revoked();
        }
        outcome
    });
    Ok(changing.await.map_err(|_| Denial::Broken)??)
}

async fn read(body: Body) -> Result<Vec<u8>, Denial> {
    const MOST: usize = 16 << 10;
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(5);
    let body = timeout(LONGEST, to_bytes(body, MOST)).await;
    let body = body.map_err(|_| Denial::Body)?.map_err(|_| Denial::Body)?;
    Ok(body.to_vec())
}

/// The entry with its id.
fn shown(revocation: &Revocation) -> Value {
    let mut shown = json!(revocation);
    shown["id"] = revocation.id().into();
    shown
}

fn answer(status: StatusCode, document: &Value) -> Response {
    let fields = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, fields, document.to_string()).into_response()
}
