//! The time of an answer (RFC 9110 §6.6.1).

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use hyper::header::HeaderValue;

thread_local! {
    /// The second that was written last, and how.
    static LAST: RefCell<(u64, HeaderValue)> = RefCell::new((0, of(0)));
}

/// `Date` of an answer that is sent now; written once a second.
pub(super) fn now() -> HeaderValue {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let second = now.unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|last| {
        if last.0 != second {
            *last = (second, of(second));
        }
        last.1.clone()
    })
}

fn of(second: u64) -> HeaderValue {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let date = HeaderValue::try_from(httpdate::fmt_http_date(time));
    date.expect("a date is made of visible characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_written_as_http_writes_it() {
        // RFC 9110 §5.6.7.
        assert_eq!(of(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn it_is_the_time_now() {
        let before = SystemTime::now() - Duration::from_secs(1);
        let said = now();
        let date = httpdate::parse_http_date(said.to_str().unwrap()).unwrap();
        assert!(before <= date && date <= SystemTime::now(), "{said:?}");
    }
}
