//! The MQTT broker's door: one connection's CONNECT is read, judged and answered here, then a
//! session takes over. Works on any byte stream; the TCP listener and MQTT over WebSocket share it.
//! Sessions are never kept: "session present" is always 0. A client id has one connection at a
//! time; a newer one ends the older (MQTT 5 §3.1.4).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rmqtt_codec::error::DecodeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Source};
use crate::mqtt_codec::{Connect, ConnectRefusal, Encoded, Incoming, Outgoing};
use crate::mqtt_link::{Link, Lost};
use crate::mqtt_session::{Session, will};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Broker {
    bus: Arc<Bus>,
    /// The connection that holds each client id.
    holders: Mutex<HashMap<String, Holder>>,
    last_number: AtomicU64,
}

struct Holder {
    number: u64,
    taken_over: CancellationToken,
}

impl Broker {
    pub(crate) fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            holders: Mutex::default(),
            last_number: AtomicU64::new(0),
        }
    }

    pub(crate) async fn serve_tcp(self: Arc<Self>, stream: TcpStream) {
        let (reader, writer) = stream.into_split();
        self.serve(Source::Mqtt, reader, writer).await;
    }

    pub(crate) async fn serve<R, W>(self: Arc<Self>, source: Source, reader: R, writer: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut link = Link::new(reader, writer);
        // Whatever is wrong with a CONNECT, its sender has had its answer by now.
        let _ = self.welcome(source, &mut link).await;
        link.close().await;
    }

    async fn welcome<R, W>(&self, source: Source, link: &mut Link<R, W>) -> Result<(), Lost>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let connect = match read_connect(link).await? {
            Ok(connect) => connect,
            Err(refusal) => return link.send(Outgoing::Refused(refusal)).await.map(drop),
        };
        let will = connect.will.map(will).transpose().map_err(|_| Lost)?;
        let number = self.last_number.fetch_add(1, Ordering::Relaxed);
        let assigned_id = connect
            .client_id
            .is_empty()
            .then(|| format!("assigned-{number}"));
        let client_id = assigned_id.clone().unwrap_or(connect.client_id);
        let claim = self.claim(client_id, number);
        if link.send(Outgoing::Connack { assigned_id }).await? == Encoded::Discarded {
            return Err(Lost);
        }

        let mut session = Session::new(&self.bus, source, link);
        session.expect(connect.keep_alive, connect.receive_maximum);
        session.run(will, claim.taken_over.clone()).await;
        Ok(())
    }

    fn claim(&self, client_id: String, number: u64) -> Claim<'_> {
        let taken_over = CancellationToken::new();
        let holder = Holder {
            number,
            taken_over: taken_over.clone(),
        };
        if let Some(older) = self.holders().insert(client_id.clone(), holder) {
            older.taken_over.cancel();
        }
        Claim {
            broker: self,
            client_id,
            number,
            taken_over,
        }
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first packet is a CONNECT, comes soon, and carries a secret; or the connection is over.
async fn read_connect<R, W>(link: &mut Link<R, W>) -> Result<Result<Connect, ConnectRefusal>, Lost>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let connect = match timeout(CONNECT_LIMIT, link.next()).await {
        Ok(Some(Ok(Incoming::Connect(connect)))) => *connect,
        Ok(Some(Err(DecodeError::InvalidClientId))) => return Ok(Err(ConnectRefusal::BadClientId)),
        Ok(Some(Ok(_) | Err(_)) | None) | Err(_) => return Err(Lost),
    };
    if connect.enhanced {
        return Ok(Err(ConnectRefusal::EnhancedAuthentication));
    }
    if !connect.has_secret {
        return Ok(Err(ConnectRefusal::NoSecret));
    }
    Ok(Ok(connect))
}

/// Holds a client id until dropped, or until another connection claims it.
struct Claim<'a> {
    broker: &'a Broker,
    client_id: String,
    number: u64,
    taken_over: CancellationToken,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut holders = self.broker.holders();
        if holders
            .get(&self.client_id)
            .is_some_and(|holder| holder.number == self.number)
        {
            holders.remove(&self.client_id);
        }
    }
}
