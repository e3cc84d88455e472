//! Many connections of two kinds of devices at once: no request is ever given another's identity
//! (W25, S28).

use futures_util::future::join_all;

use crate::harness::lab::{Config, SECRET};
use crate::harness::{Kept, Lab, Protocol};

const OTHER: &str = "00000000-0000-4000-8000-000000000000";
const CONNECTIONS: usize = 1000;
const ROUNDS: usize = 4;
/// Handshakes at once, so that none meets its deadline on a slow machine.
const AT_ONCE: usize = 50;

/// One device's connection.
struct Device {
    secret: &'static str,
    kept: Kept,
}

async fn connect(lab: &Lab) -> Vec<Device> {
    let clients = [
        (SECRET, lab.device()),
        (OTHER, lab.client(Some(lab.authority.device(OTHER)))),
    ];
    let mut devices = Vec::new();
    for batch in 0..CONNECTIONS / AT_ONCE {
        let opening = (0..AT_ONCE).map(|n| {
            let number = batch * AT_ONCE + n;
            let (secret, client) = &clients[number % 2];
            let protocol = match number % 4 < 2 {
                true => Protocol::Http1,
                false => Protocol::Http2,
            };
            async move {
                Device {
                    secret,
                    kept: client.keep(protocol).await.unwrap(),
                }
            }
        });
        devices.extend(join_all(opening).await);
    }
    devices
}

impl Device {
    /// A request that says whose it is; every fifth also claims to be the other's.
    async fn ask(&mut self, number: usize) {
        let claims = if number.is_multiple_of(5) {
            Some(if self.secret == SECRET { OTHER } else { SECRET })
        } else {
            None
        };
        let mut fields = vec![("x-device", self.secret)];
        fields.extend(claims.map(|claim| ("authorization", claim)));
        let answer = self.kept.get("/http/m", &fields).await.unwrap();
        let expected = if claims.is_some() { 403 } else { 200 };
        assert_eq!(answer.status, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_never_see_each_others_identity() {
    let lab = Config::x509().start().await;
    let mut devices = connect(&lab).await;
    for round in 0..ROUNDS {
        let asking = devices.iter_mut().enumerate();
        join_all(asking.map(|(number, device)| device.ask(number + round))).await;
    }
    let requests = lab.origin.requests();
    assert_eq!(requests.len(), CONNECTIONS * ROUNDS * 4 / 5);
    for request in &requests {
        let device = request.all("x-device");
        assert_eq!(
            request.all("authorization"),
            [format!("Client {}", device[0])]
        );
    }
    for secret in [SECRET, OTHER] {
        let own = requests.iter().filter(|r| r.all("x-device") == [secret]);
        assert_eq!(own.count(), requests.len() / 2);
    }
}
