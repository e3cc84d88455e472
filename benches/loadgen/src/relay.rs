//! A blind TLS relay: verifies the client's certificate, then passes bytes both ways and looks at none.
//! What a gateway over the same libraries costs more, it costs for what it does.
use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{copy_bidirectional, AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::common::Args;

pub async fn run(a: &Args) -> i32 {
    let certs = a.str("certs", ".");
    let (ec, rsa) = (acceptor(&format!("{certs}/ec")), acceptor(&format!("{certs}/rsa")));
    let port = |name, usual| a.usize(name, usual) as u16;
    let (origin, broker) = (port("origin", 23001), port("broker", 23002));
    tokio::join!(
        serve(port("https", 23100), ec.clone(), origin),
        serve(port("https-rsa", 23101), rsa, origin),
        serve(port("mqtts", 23102), ec, broker),
    );
    0
}

fn acceptor(dir: &str) -> TlsAcceptor {
    let read = |name| {
        let file = format!("{dir}/{name}.pem");
        let certs = CertificateDer::pem_file_iter(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        certs.map(|cert| cert.expect("a certificate in PEM")).collect::<Vec<_>>()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read("ca"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{dir}/server.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(read("server"), key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(port: u16, acceptor: TlsAcceptor, to: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap_or_else(|e| {
        eprintln!("bind {port}: {e}");
        std::process::exit(2)
    });
    loop {
        if let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let _ = relay(client, acceptor, to).await;
            });
        }
    }
}

async fn relay(client: TcpStream, acceptor: TlsAcceptor, to: u16) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    // Who shakes hands and leaves costs the other side nothing.
    if client.fill_buf().await?.is_empty() {
        return client.shutdown().await;
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
