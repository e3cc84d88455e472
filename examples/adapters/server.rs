//! Accepting connections, and serving HTTP/1.1 on one of them until it ends or upgrades.
//! Each connection is one task, owned by its listener's loop and gone with it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::refusal::{Answer, Refusal};

const MAX_CONNECTIONS: usize = 4096;
const HEADER_LIMIT: Duration = Duration::from_secs(75);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection of the listener; dropping the future aborts them all.
pub(crate) async fn accept_each<S, F>(listener: TcpListener, serve: S)
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of descriptors: spinning would not bring one back.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = serve(stream);
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// HTTP/1.1 with keep-alive; returns when the connection closed or was handed over by an upgrade.
pub(crate) async fn serve_http<H, F>(stream: TcpStream, handle: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Answer, Refusal>>,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        async { Ok::<Response<_>, Infallible>(answer.await.unwrap_or_else(Refusal::answer)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A broken connection is the client's business; there is nobody left to tell.
    let _ = connection.await;
}
