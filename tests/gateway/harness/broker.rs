//! The broker behind the gateway: records every connection and every byte on it, answers a complete
//! CONNECT with a CONNACK, and says what else a test tells it to.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::PATIENCE;
use super::mqtt::first_packet;

/// A recording broker.
#[derive(Clone)]
pub struct Broker {
    pub address: SocketAddr,
    seen: watch::Sender<Vec<Conversation>>,
}

/// One connection of the gateway.
struct Conversation {
    peer: SocketAddr,
    received: Vec<u8>,
    ended: bool,
    /// What the broker shall say; dropped, it ends the connection.
    say: Option<mpsc::UnboundedSender<Vec<u8>>>,
}

impl Broker {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broker = Self {
            address: listener.local_addr().unwrap(),
            seen: watch::Sender::new(Vec::new()),
        };
        tokio::spawn(broker.clone().accept(listener));
        broker
    }

    /// Waits until connection `index` has brought `length` bytes, and gives all that it has.
    pub async fn received(&self, index: usize, length: usize) -> Vec<u8> {
        self.wait(|seen| {
            seen.get(index)
                .is_some_and(|conversation| conversation.received.len() >= length)
        })
        .await;
        self.seen.borrow()[index].received.clone()
    }

    /// Waits until the gateway has ended connection `index`, and gives everything it has brought.
    pub async fn ended(&self, index: usize) -> Vec<u8> {
        self.wait(|seen| {
            seen.get(index)
                .is_some_and(|conversation| conversation.ended)
        })
        .await;
        self.seen.borrow()[index].received.clone()
    }

    /// Sends bytes to the client of connection `index`.
    pub fn say(&self, index: usize, bytes: &[u8]) {
        let seen = self.seen.borrow();
        let say = seen[index].say.as_ref().expect("the broker has not closed");
        say.send(bytes.to_vec()).unwrap();
    }

    /// The same, if the gateway has not ended that connection.
    pub fn try_say(&self, index: usize, bytes: &[u8]) -> Option<()> {
        let ended = self.seen.borrow()[index].ended;
        (!ended).then(|| self.say(index, bytes))
    }

    /// Ends connection `index` from the broker's side.
    pub fn close(&self, index: usize) {
        self.seen.send_modify(|seen| seen[index].say = None);
    }

    /// Everything received so far, by connection.
    pub fn conversations(&self) -> Vec<Vec<u8>> {
        let seen = self.seen.borrow();
        seen.iter()
            .map(|conversation| conversation.received.clone())
            .collect()
    }

    /// Panics if the gateway has opened `count` connections or more. Connections are accepted in
    /// the order in which they were opened, so one of our own shows that none is on its way.
    pub async fn assert_fewer_than(&self, count: usize) {
        let probe = TcpStream::connect(self.address).await.unwrap();
        let ours = probe.local_addr().unwrap();
        self.wait(|seen| seen.iter().any(|conversation| conversation.peer == ours))
            .await;
        self.seen
            .send_modify(|seen| seen.retain(|conversation| conversation.peer != ours));
        let connections = self.seen.borrow().len();
        assert!(connections < count, "{connections} connections");
    }

    /// Panics if the gateway has dialled.
    pub async fn assert_untouched(&self) {
        self.assert_fewer_than(1).await;
    }

    async fn wait(&self, condition: impl Fn(&Vec<Conversation>) -> bool) {
        let mut seen = self.seen.subscribe();
        let waiting = seen.wait_for(condition);
        let found = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(found, "{:?}", self.conversations());
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let (say, said) = mpsc::unbounded_channel();
            self.seen.send_modify(|seen| {
                seen.push(Conversation {
                    peer,
                    received: Vec::new(),
                    ended: false,
                    say: Some(say.clone()),
                });
            });
            tokio::spawn(self.clone().converse(stream, peer, say.downgrade(), said));
        }
    }

    async fn converse(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        say: mpsc::WeakUnboundedSender<Vec<u8>>,
        mut said: mpsc::UnboundedReceiver<Vec<u8>>,
    ) {
        let (mut reader, mut writer) = stream.into_split();
        tokio::spawn(async move {
            while let Some(bytes) = said.recv().await {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // The gateway may be gone already.
            let _ = writer.shutdown().await;
        });
        let mut received = Vec::new();
        let mut answered = false;
        while matches!(reader.read_buf(&mut received).await, Ok(1..)) {
            self.note(peer, |conversation| {
                let known = conversation.received.len();
                conversation.received.extend_from_slice(&received[known..]);
            });
            if !answered && let Some(connect) = first_packet(&received) {
                answered = true;
                if let Some(say) = say.upgrade() {
                    let _ = say.send(connack(connect));
                }
            }
        }
        self.note(peer, |conversation| conversation.ended = true);
    }

    fn note(&self, peer: SocketAddr, change: impl FnOnce(&mut Conversation)) {
        self.seen.send_modify(|seen| {
            let ours = seen
                .iter_mut()
                .find(|conversation| conversation.peer == peer);
            if let Some(conversation) = ours {
                change(conversation);
            }
        });
    }
}

/// The answer of a broker that has nothing against it.
fn connack(connect: &[u8]) -> Vec<u8> {
    if connect.windows(7).any(|name| name == b"\x00\x04MQTT\x05") {
        vec![0x20, 3, 0, 0, 0]
    } else {
        vec![0x20, 2, 0, 0]
    }
}
