//! When a server that fails is left out, and for how long: rules without I/O, the time given.
//!
//! As in Envoy's outlier detection, failures in a row count, and each time out is longer than the
//! one before; what counts is Envoy's "gateway failure".

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

/// When a server is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionSettings {
    /// After how many failures in a row; `None` for never.
    pub failures: Option<u32>,
    /// For how long, the first time.
    pub time: Duration,
    /// For how long at most.
    pub max_time: Duration,
}

/// How a server has fared with a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Fine,
    /// It cannot be reached, breaks off, is silent, or says itself that it cannot serve.
    Faulty,
    /// Something else has gone wrong, which says nothing of it.
    Unknown,
}

impl From<StatusCode> for Outcome {
    /// RFC 9110 §15.6.3 to §15.6.5: the server, or what it is a gateway to, does not serve. Any
    /// other status, 500 too, is about the request.
    fn from(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Self::Faulty,
            _ => Self::Fine,
        }
    }
}

/// What is remembered of one server's times out.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// While it is out.
    until: Option<Instant>,
    /// How many times it has been out, without a long good time in between.
    times: u32,
    returned: Option<Instant>,
}

impl Record {
    pub(super) fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// When it comes back, if it is out.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Leaves it out from `now`, and says for how long: twice as long as the last time, but anew
    /// after it has served for the longest time out there is.
    pub(super) fn eject(&mut self, rules: &EjectionSettings, now: Instant) -> Duration {
        if self
            .returned
            .is_some_and(|returned| now - returned >= rules.max_time)
        {
            self.times = 0;
        }
        let factor = 2_u32.saturating_pow(self.times);
        let time = rules.time.saturating_mul(factor).min(rules.max_time);
        self.times = self.times.saturating_add(1);
        self.until = Some(now + time);
        time
    }

    /// Lets it back if its time is over, and says whether it has.
    pub(super) fn readmit(&mut self, now: Instant) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now);
        if is_over {
            self.until = None;
            self.returned = Some(now);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: EjectionSettings = EjectionSettings {
        failures: Some(5),
        time: Duration::from_secs(10),
        max_time: Duration::from_secs(60),
    };

    #[test]
    fn times_out_double_up_to_the_longest() {
        let (mut record, mut now) = (Record::default(), Instant::now());
        for expected in [10, 20, 40, 60, 60] {
            let time = record.eject(&RULES, now);
            assert_eq!(time, expected * SECOND);
            assert!(!record.readmit(now + time - SECOND) && record.is_out());
            now += time;
            assert!(record.readmit(now) && !record.is_out());
        }
    }

    #[test]
    fn a_long_good_time_is_a_new_beginning() {
        let (mut record, now) = (Record::default(), Instant::now());
        assert_eq!(record.eject(&RULES, now), 10 * SECOND);
        assert!(record.readmit(now + 10 * SECOND));
        assert_eq!(record.eject(&RULES, now + 69 * SECOND), 20 * SECOND);
        assert!(record.readmit(now + 89 * SECOND));
        assert_eq!(record.eject(&RULES, now + 149 * SECOND), 10 * SECOND);
    }

    #[test]
    fn only_what_says_that_nothing_is_served_is_faulty() {
        for (status, expected) in [
            (200, Outcome::Fine),
            (404, Outcome::Fine),
            (500, Outcome::Fine),
            (501, Outcome::Fine),
            (502, Outcome::Faulty),
            (503, Outcome::Faulty),
            (504, Outcome::Faulty),
        ] {
            assert_eq!(
                Outcome::from(StatusCode::from_u16(status).unwrap()),
                expected
            );
        }
    }
}
