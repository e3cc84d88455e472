//! Servers that fail are left out for a time.

use hyper::StatusCode;

use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, Version, Wire};
use crate::harness::{Client, Lab, Protocol};

use super::{
    Absent, brokers, config, counts, lab, metric, origins, problem, sum, until_in_service,
};

/// Long enough that nothing comes back within a test.
const LONG: &str = "[upstreams.many.ejection]\nfailures = 3\ntime = \"5m\"";

/// Statuses of requests for `path`, one after the other on one connection.
async fn gets(lab: &Lab, path: &str, count: usize) -> Vec<StatusCode> {
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(kept.get(path, &[]).await.unwrap().status);
    }
    statuses
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_left_out_and_comes_back() {
    let [up] = origins().await;
    let absent = Absent::new();
    let down = absent.address;
    let rules = "[upstreams.many.ejection]\nfailures = 3\ntime = \"300ms\"";
    let lab = lab(&[down, up.address], rules).await;
    assert_eq!(metric(&lab, "in_service", down).await, Some(1));
    assert_eq!(gets(&lab, "/many/m", 20).await, [StatusCode::OK; 20]);
    assert!(metric(&lab, "ejections", down).await >= Some(1));
    assert_eq!(metric(&lab, "ejections", up.address).await, Some(0));
    let back = absent.appear();
    until_in_service(&lab, down, true).await;
    assert_eq!(gets(&lab, "/many/m", 20).await, [StatusCode::OK; 20]);
    assert!(!back.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_is_left_out_is_not_asked() {
    let [up] = origins().await;
    let absent = Absent::new();
    let down = absent.address;
    let lab = lab(&[down, up.address], LONG).await;
    gets(&lab, "/many/m", 10).await;
    until_in_service(&lab, down, false).await;
    let late = absent.appear();
    assert_eq!(gets(&lab, "/many/m", 20).await, [StatusCode::OK; 20]);
    late.assert_untouched();
    assert_eq!(metric(&lab, "failures", down).await, Some(3));
}

#[tokio::test]
async fn answers_that_say_that_nothing_is_served_count_and_others_do_not() {
    for status in [502, 503, 504] {
        let origins = origins::<2>().await;
        let lab = lab(&origins.each_ref().map(|o| o.address), LONG).await;
        for harmless in [500, 501, 404, 429] {
            gets(&lab, &format!("/many/status/{harmless}"), 10).await;
        }
        // One good answer begins the count anew.
        for _ in 0..3 {
            gets(&lab, &format!("/many/status/{status}"), 4).await;
            gets(&lab, "/many/m", 4).await;
        }
        for origin in &origins {
            assert_eq!(metric(&lab, "ejections", origin.address).await, Some(0));
        }
        let answers = gets(&lab, &format!("/many/status/{status}"), 20).await;
        assert!(answers.iter().all(|answer| *answer == status));
        let [one, other] = origins.each_ref().map(|o| o.address);
        let out = metric(&lab, "ejections", one).await.unwrap()
            + metric(&lab, "ejections", other).await.unwrap();
        assert_eq!(out, 1, "the last one must stay");
    }
}

#[tokio::test]
async fn a_silent_server_counts_as_one_that_fails() {
    let [silent, well] = origins().await;
    let lab = lab(&[silent.address, well.address], LONG).await;
    gets(&lab, "/brief/silent", 6).await;
    let [one, other] = [silent.address, well.address];
    let out = [
        metric(&lab, "ejections", one).await,
        metric(&lab, "ejections", other).await,
    ];
    assert!(
        out == [Some(1), Some(0)] || out == [Some(0), Some(1)],
        "{out:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_answered_for_within_the_total_time_counts_as_one_that_fails() {
    let origins = origins::<2>().await;
    let limit = "total_timeout = \"100ms\"";
    let route = "[routes.limited]\npath = \"/limited/\"\nupstream = \"many\"\nstrip_prefix = true";
    let servers = origins.each_ref().map(|origin| origin.address);
    let lab = lab(&servers, &format!("{LONG}\n{route}\n{limit}")).await;
    let answers = gets(&lab, "/limited/silent", 6).await;
    assert_eq!(answers, [StatusCode::GATEWAY_TIMEOUT; 6]);
    assert_eq!(sum(&lab, "ejections", &origins).await, 1);
}

#[tokio::test]
async fn a_server_that_waits_for_its_client_has_not_failed() {
    let origins = origins::<2>().await;
    let servers = origins.each_ref().map(|origin| origin.address);
    // Longer than the server's time to answer, which has not begun.
    let config = config(&servers, LONG).timeouts("stall = \"400ms\"");
    let limit = "total_timeout = \"200ms\"";
    let route = "[routes.limited]\npath = \"/limited/\"\nupstream = \"many\"\nstrip_prefix = true";
    let lab = config.tables(&format!("{route}\n{limit}")).start().await;
    let device = lab.device();
    for (path, status) in [("/brief/m", "408"), ("/limited/m", "504")] {
        for _ in 0..8 {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Length: 10\r\n\r\nx"
            );
            let answer = device.raw(request.as_bytes()).await.unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
        }
    }
    assert_eq!(sum(&lab, "failures", &origins).await, 0);
}

#[tokio::test]
async fn a_request_that_its_client_breaks_off_says_nothing_of_the_server() {
    let origins = origins::<2>().await;
    let lab = lab(&origins.each_ref().map(|origin| origin.address), LONG).await;
    // Both have failed, once less than they may.
    gets(&lab, "/brief/silent", 4).await;
    let broken =
        b"POST /brief/m HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    for _ in 0..2 {
        let answer = lab.device().raw(broken).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(sum(&lab, "ejections", &origins).await, 0);
    gets(&lab, "/brief/silent", 2).await;
    assert_eq!(
        sum(&lab, "ejections", &origins).await,
        1,
        "the last one stays"
    );
}

#[tokio::test]
async fn the_only_server_is_never_left_out() {
    let [only] = origins().await;
    let lab = lab(&[only.address], LONG).await;
    gets(&lab, "/many/status/503", 10).await;
    assert_eq!(metric(&lab, "in_service", only.address).await, Some(1));
    assert_eq!(gets(&lab, "/many/m", 1).await, [StatusCode::OK]);
}

#[tokio::test]
async fn a_server_that_is_left_out_is_tried_when_no_other_can_be_reached() {
    let (one, other) = (Absent::new(), Absent::new());
    let lab = lab(&[one.address, other.address], LONG).await;
    assert_eq!(gets(&lab, "/many/m", 5).await, [StatusCode::BAD_GATEWAY; 5]);
    let is_out = metric(&lab, "in_service", one.address).await == Some(0);
    let out = if is_out { one } else { other };
    let (address, back) = (out.address, out.appear());
    assert_eq!(gets(&lab, "/many/m", 5).await, [StatusCode::OK; 5]);
    assert_eq!(back.requests().len(), 5);
    assert_eq!(metric(&lab, "in_service", address).await, Some(0));
}

#[tokio::test]
async fn nothing_is_left_out_where_that_is_off() {
    let [up] = origins().await;
    let absent = Absent::new();
    let down = absent.address;
    let lab = lab(
        &[down, up.address],
        "[upstreams.many.ejection]\nfailures = 0",
    )
    .await;
    assert_eq!(gets(&lab, "/many/m", 40).await, [StatusCode::OK; 40]);
    assert_eq!(metric(&lab, "failures", down).await, Some(20));
    assert_eq!(metric(&lab, "in_service", down).await, Some(1));
}

#[tokio::test]
async fn brokers_that_cannot_be_reached_are_left_out_too() {
    let [up] = brokers().await;
    let absent = Absent::new();
    let down = absent.address;
    let lab = lab(&[down, up.address], LONG).await;
    let device = lab.authority.device(SECRET);
    let client = Client::new(lab.address_of("many"), lab.authority.der(), Some(device));
    for _ in 0..12 {
        let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
        wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
            .await;
        assert_eq!(wire.packet().await.unwrap(), Version::V5.accepted());
    }
    assert_eq!(metric(&lab, "ejections", down).await, Some(1));
    assert_eq!(metric(&lab, "in_service", down).await, Some(0));
}

#[tokio::test]
async fn a_reload_forgets_servers_that_are_gone_and_nothing_else() {
    let origins = origins::<2>().await;
    let [one, two] = origins.each_ref().map(|origin| origin.address);
    let absent = Absent::new();
    let down = absent.address;
    let mut lab = lab(&[down, one], LONG).await;
    gets(&lab, "/many/m", 10).await;
    until_in_service(&lab, down, false).await;
    lab.config = config(&[down, two], LONG);
    lab.reload().unwrap();
    assert_eq!(metric(&lab, "in_service", down).await, Some(0));
    assert_eq!(metric(&lab, "in_service", one).await, None);
    assert_eq!(metric(&lab, "in_service", two).await, Some(1));
    let [before, _] = counts(&origins);
    assert_eq!(gets(&lab, "/many/m", 4).await, [StatusCode::OK; 4]);
    assert_eq!(counts(&origins), [before, 4]);
}

#[tokio::test]
async fn times_that_make_no_sense_are_refused() {
    let lines = "[upstreams.many.ejection]\ntime = \"10m\"";
    let problem = problem(&["a:1"], lines).await;
    assert!(
        problem.contains("ejection.max_time: must not be less"),
        "{problem}"
    );
}
