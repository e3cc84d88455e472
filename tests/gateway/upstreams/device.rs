//! Devices that keep their servers.

use crate::harness::lab::Config;
use crate::harness::mqtt::{Connect, Version, Wire};
use crate::harness::{Client, Identity, Lab, Protocol};

use super::{Absent, brokers, config, counts, lab, origins, until_in_service};

const BY_DEVICE: &str = "balance = \"device\"";

fn devices(lab: &Lab, count: usize) -> Vec<(String, Identity)> {
    let name = |number| format!("device-{number}");
    (0..count)
        .map(|number| (name(number), lab.authority.device(&name(number))))
        .collect()
}

async fn session(lab: &Lab, secret: &str, identity: Identity) -> Wire {
    let client = Client::new(lab.address_of("many"), lab.authority.der(), Some(identity));
    let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
    wire.send(&Connect::with_password(Version::V5, secret).bytes())
        .await;
    assert_eq!(wire.packet().await.unwrap(), Version::V5.accepted());
    wire
}

#[tokio::test]
async fn a_device_keeps_its_broker_whichever_worker_it_comes_to() {
    let brokers = brokers::<2>().await;
    let addresses = brokers.each_ref().map(|broker| broker.address);
    let lab = lab(&addresses, BY_DEVICE).await;
    let sessions = || brokers.each_ref().map(|b| b.conversations().len());
    let mut met = [0, 0];
    for (secret, identity) in devices(&lab, 24) {
        let before = sessions();
        for _ in 0..4 {
            session(&lab, &secret, identity.clone()).await;
        }
        let after = sessions();
        let gained = [after[0] - before[0], after[1] - before[1]];
        assert!(gained == [4, 0] || gained == [0, 4], "{gained:?}");
        met[usize::from(gained[1] == 4)] += 1;
    }
    assert!(met.iter().all(|count| *count > 0), "{met:?}");
}

#[tokio::test]
async fn requests_and_websockets_of_a_device_come_to_the_same_server() {
    let origins = origins::<3>().await;
    let lab = lab(&origins.each_ref().map(|origin| origin.address), BY_DEVICE).await;
    for (_, identity) in devices(&lab, 12) {
        let before = counts(&origins);
        let client = lab.client(Some(identity));
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut kept = client.keep(protocol).await.unwrap();
            kept.get("/many/m", &[]).await.unwrap();
            kept.get("/many/m", &[]).await.unwrap();
        }
        client.open_websocket("/many/ws", &[]).await.unwrap();
        let after = counts(&origins);
        let mut gained: Vec<usize> = (0..3).map(|at| after[at] - before[at]).collect();
        gained.sort_unstable();
        assert_eq!(gained, [0, 0, 5]);
    }
}

#[tokio::test]
async fn by_key_a_device_is_known_by_its_secret() {
    let origins = origins::<2>().await;
    let addresses = origins.each_ref().map(|origin| origin.address);
    let tables = config(&addresses, BY_DEVICE).tables;
    let lab = Config::key().tables(&tables).start().await;
    let mut met = [0, 0];
    for number in 0..24 {
        let before = counts(&origins);
        let credential = format!("Client secret-{number}");
        for _ in 0..4 {
            let mut kept = lab.anonymous().keep(Protocol::Http1).await.unwrap();
            let fields = [("authorization", credential.as_str())];
            let answer = kept.get("/many/m", &fields).await.unwrap();
            assert_eq!(answer.status, 200);
        }
        let after = counts(&origins);
        let gained = [after[0] - before[0], after[1] - before[1]];
        assert!(gained == [4, 0] || gained == [0, 4], "{gained:?}");
        met[usize::from(gained[1] == 4)] += 1;
    }
    assert!(met.iter().all(|count| *count > 0), "{met:?}");
}

#[tokio::test]
async fn a_device_moves_only_as_long_as_its_server_is_gone() {
    let origins = origins::<2>().await;
    let absent = Absent::new();
    let [one, two] = origins.each_ref().map(|origin| origin.address);
    let rules = format!("{BY_DEVICE}\n[upstreams.many.ejection]\nfailures = 1\ntime = \"100ms\"");
    let lab = lab(&[one, absent.address, two], &rules).await;
    let mut moved = Vec::new();
    let mut stayed = Vec::new();
    for (_, identity) in devices(&lab, 24) {
        let client = lab.client(Some(identity));
        let before = counts(&origins);
        for _ in 0..3 {
            assert_eq!(client.get("/many/m").await.unwrap().status, 200);
        }
        let after = counts(&origins);
        let gained = [after[0] - before[0], after[1] - before[1]];
        assert!(gained == [3, 0] || gained == [0, 3], "{gained:?}");
        moved.push((client, gained));
    }
    let address = absent.address;
    let back = absent.appear();
    until_in_service(&lab, address, true).await;
    for (client, gained) in moved {
        let before = counts(&origins);
        let theirs = back.requests().len();
        assert_eq!(client.get("/many/m").await.unwrap().status, 200);
        if back.requests().len() == theirs {
            let after = counts(&origins);
            assert_eq!(
                [after[0] - before[0], after[1] - before[1]],
                gained.map(|n| n / 3)
            );
            stayed.push(());
        }
    }
    assert!(!back.requests().is_empty() && !stayed.is_empty());
}
