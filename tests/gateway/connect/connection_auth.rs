//! Authentication that belongs to a connection: nobody comes after such a client on it.

use futures_util::future::join;
use hyper::Method;

use super::config;
use crate::harness::kept::whole;
use crate::harness::scripted::Peer;
use crate::harness::{Kept, Lab, Protocol, Scripted};

async fn lab(server: &Scripted) -> Lab {
    let public = "[routes.open]\npath = \"/open/\"\nupstream = \"raw\"\ncredential = \"none\"";
    config(server.address, public).start().await
}

/// A request with these fields, which the server answers with those on `peer`.
async fn exchange(client: &mut Kept, peer: &mut Peer, fields: &[(&str, &str)], answer: &str) {
    let answered = async {
        peer.head().await;
        peer.say(&format!(
            "HTTP/1.1 200 OK\r\n{answer}Content-Length: 2\r\n\r\nok"
        ))
        .await;
    };
    let request = client.request(Method::GET, "/open/m", fields, whole(""));
    let (response, ()) = join(request, answered).await;
    assert_eq!(response.unwrap().body, "ok");
}

/// The first request on a connection, which has to be opened for it.
async fn first(
    client: &mut Kept,
    server: &Scripted,
    fields: &[(&str, &str)],
    answer: &str,
) -> Peer {
    let answered = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(&format!(
            "HTTP/1.1 200 OK\r\n{answer}Content-Length: 2\r\n\r\nok"
        ))
        .await;
        peer
    };
    let request = client.request(Method::GET, "/open/m", fields, whole(""));
    let (response, peer) = join(request, answered).await;
    assert_eq!(response.unwrap().body, "ok");
    peer
}

#[tokio::test]
async fn a_connection_that_a_client_has_authenticated_ends_with_its_request() {
    for scheme in ["NTLM TlRMTVNTUAAD", "negotiate YII="] {
        let server = Scripted::start().await;
        let lab = lab(&server).await;
        let mut client = lab.device().keep(Protocol::Http1).await.unwrap();
        // An idle connection is there, and not taken for it.
        let mut shared = first(&mut client, &server, &[], "").await;
        let own = first(&mut client, &server, &[("authorization", scheme)], "").await;
        own.closed().await;
        exchange(&mut client, &mut shared, &[], "").await;
    }
}

#[tokio::test]
async fn a_connection_that_is_to_be_authenticated_is_not_shared() {
    for challenge in ["NTLM", "Negotiate", "Basic realm=\"a\", NTLM"] {
        let server = Scripted::start().await;
        let lab = lab(&server).await;
        let mut client = lab.device().keep(Protocol::Http1).await.unwrap();
        let asks = format!("WWW-Authenticate: {challenge}\r\n");
        first(&mut client, &server, &[], &asks).await.closed().await;
        first(&mut client, &server, &[], "").await;
    }
}

#[tokio::test]
async fn authentication_of_requests_shares_a_connection() {
    let server = Scripted::start().await;
    let lab = lab(&server).await;
    let mut client = lab.device().keep(Protocol::Http1).await.unwrap();
    let basic = [("authorization", "Basic YTpi")];
    let asks = "WWW-Authenticate: Basic realm=\"a\"\r\n";
    let mut peer = first(&mut client, &server, &basic, asks).await;
    exchange(
        &mut client,
        &mut peer,
        &[("authorization", "Bearer ntlm")],
        "",
    )
    .await;
    exchange(&mut client, &mut peer, &[], "").await;
}
