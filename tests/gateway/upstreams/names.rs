//! Servers with names.

use crate::harness::Protocol;

use super::{config, lab, metric, origins, until_in_service};

#[tokio::test]
async fn a_name_is_resolved_and_its_servers_are_known_by_address() {
    let [origin] = origins().await;
    let name = format!("localhost:{}", origin.address.port());
    let lab = lab(&[&name], "balance = \"device\"").await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    // At once, whether the name has been resolved already or not.
    assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
    until_in_service(&lab, origin.address, true).await;
    assert_eq!(metric(&lab, "in_service", &name).await, None);
    assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_no_obstacle_to_the_start_nor_to_others() {
    let [origin] = origins().await;
    let up = origin.address.to_string();
    let lab = lab(&["no-such-host.invalid:80", &up], "").await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for _ in 0..6 {
        assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
    }
    let down = metric(&lab, "in_service", "no-such-host.invalid:80").await;
    assert!(down.is_some(), "it is still known by its name");
}

#[tokio::test]
async fn a_reload_keeps_the_numbers_of_an_address_that_goes_by_another_name() {
    let [origin] = origins().await;
    let name = format!("localhost:{}", origin.address.port());
    let mut lab = lab(&[&name], "").await;
    until_in_service(&lab, origin.address, true).await;
    lab.config = config(&[origin.address], "");
    lab.reload().unwrap();
    assert_eq!(metric(&lab, "in_service", origin.address).await, Some(1));
}
