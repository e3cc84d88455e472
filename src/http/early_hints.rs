//! Interim answers on their way through: 103 Early Hints (RFC 8297).
//!
//! hyper has no way to send them in HTTP/1.1, so they go past it: [`super::watch::Watched`] writes them where hyper has
//! nothing left to write and the answer has not begun. In HTTP/2, [`super::http2`] sends them. They are advice, and
//! dropped wherever that place is missed.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::headers;
use crate::route::{FieldAction, FieldRules, Route};
use crate::upstream::OnInterim;

/// Most interim answers to one request, and how many may wait to be passed on.
const MOST: usize = 8;

const STATUS_LINE: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";

/// Most bytes of one in HTTP/1.1. A client holds it in memory before it knows what it is for.
const MOST_BYTES: usize = 8 * 1024;

/// The fields of an interim answer to the client, between the request that it is for and the stream.
#[derive(Debug, Default)]
pub(super) struct Interim {
    /// Looked at with every flush, where a lock would be felt.
    is_there: AtomicBool,
    /// Boxed, since there are none nearly always.
    fields: Mutex<Option<Box<HeaderMap>>>,
}

impl Interim {
    /// To be written next, unless the one before still waits: a client that does not read gets none.
    pub(super) fn offer(&self, fields: HeaderMap) {
        if !self.is_there.load(Ordering::Relaxed) {
            self.put(Some(Box::new(fields)));
        }
    }

    /// The answer begins: what has not been written by now is not written any more.
    pub(super) fn withdraw(&self) {
        if self.is_there.load(Ordering::Relaxed) {
            self.put(None);
        }
    }

    /// What is to be sent, once.
    pub(super) fn take(&self) -> Option<HeaderMap> {
        let is_there = self.is_there.load(Ordering::Relaxed);
        is_there
            .then(|| self.put(None))
            .flatten()
            .map(|fields| *fields)
    }

    fn put(&self, fields: Option<Box<HeaderMap>>) -> Option<Box<HeaderMap>> {
        self.is_there.store(fields.is_some(), Ordering::Relaxed);
        let mut place = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place, fields)
    }
}

/// The interim answers to one request.
#[derive(Debug)]
pub(super) struct EarlyHints {
    hints: mpsc::Receiver<HeaderMap>,
}

impl EarlyHints {
    /// Asks for those to `request`, which goes by `route`.
    pub(super) fn of(request: &mut Parts, route: Arc<Route>) -> Self {
        let (sender, hints) = mpsc::channel(MOST);
        request
            .extensions
            .insert(OnInterim::new(move |status, fields| {
                // 100 is the gateway's own, and 102 of no use to anybody.
                if status == StatusCode::EARLY_HINTS
                    && let Some(hint) = hint(fields, &route.answer_fields)
                {
                    // If nobody takes it, the request has been answered, or there are too many.
                    let _ = sender.try_send(hint);
                }
            }));
        Self { hints }
    }

    /// Passes them on until `answered` is, which is looked at after them: what has come before the
    /// answer is passed on although that is there as well.
    pub(super) async fn pass_on_until<F: Future>(
        mut self,
        mut answered: Pin<&mut F>,
        interim: &Interim,
    ) -> F::Output {
        let _place = Place(interim);
        for _ in 0..MOST {
            tokio::select! {
                biased;
                Some(hint) = self.hints.recv() => interim.offer(hint),
                answer = &mut answered => return answer,
            }
            // Whoever waits for the request looks here each time that it has to wait on.
            tokio::task::yield_now().await;
        }
        answered.await
    }
}

/// The place before an answer. It ends with the wait for that, whether it has come or has been given up
/// for one of the gateway's own.
struct Place<'a>(&'a Interim);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// The fields as they go to the client, without what is about the connection to the server, what only the
/// answer can say of itself, and what a server cannot say here by `rules`; `None` if nothing is left, or
/// too much.
fn hint(fields: &HeaderMap, rules: &FieldRules) -> Option<HeaderMap> {
    let mut fields = fields.clone();
    headers::remove_what_hints_cannot_say(&mut fields);
    for rule in rules.iter() {
        match rule.action {
            FieldAction::Remove | FieldAction::Set(_) => drop(fields.remove(&rule.name)),
            FieldAction::Add(_) => {}
        }
    }
    let lines = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    let bytes = STATUS_LINE.len() + lines.sum::<usize>() + 2;
    (!fields.is_empty() && bytes <= MOST_BYTES).then_some(fields)
}

/// The head of HTTP/1.1 that says `fields`.
pub(super) fn encode(fields: &HeaderMap) -> Bytes {
    let mut head = STATUS_LINE.to_vec();
    headers::write(&mut head, fields);
    head.into()
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue, LINK};

    use super::*;

    fn encoded(fields: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let hint = hint(&headers, &FieldRules::default());
        hint.map(|fields| String::from_utf8(encode(&fields).to_vec()).unwrap())
    }

    fn fields(link: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(LINK, HeaderValue::from_static(link))])
    }

    #[test]
    fn what_is_end_to_end_is_passed_on() {
        let head = encoded(&[
            ("link", "</a.css>; rel=preload"),
            ("connection", "x-hop, close"),
            ("link", "</b.js>; rel=preload"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("keep-alive", "timeout=5"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
        ]);
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\
                        link: </b.js>; rel=preload\r\n\r\n";
        assert_eq!(head.as_deref(), Some(expected));
    }

    #[test]
    fn what_says_nothing_or_too_much_is_dropped() {
        assert_eq!(encoded(&[]), None);
        assert_eq!(encoded(&[("connection", "close")]), None);
        let long = "x".repeat(MOST_BYTES);
        assert_eq!(encoded(&[("link", &long)]), None);
        assert!(encoded(&[("link", &long[100..])]).is_some());
    }

    #[tokio::test]
    async fn nothing_waits_for_its_place_once_the_answer_is_given_up() {
        let interim = Interim::default();
        let (sender, hints) = mpsc::channel(MOST);
        sender.try_send(fields("hint")).unwrap();
        let mut never = std::pin::pin!(std::future::pending::<()>());
        let mut waiting = Box::pin(EarlyHints { hints }.pass_on_until(never.as_mut(), &interim));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(interim.is_there.load(Ordering::Relaxed));
        drop(waiting);
        assert_eq!(interim.take(), None);
    }

    #[test]
    fn one_waits_at_a_time_and_is_taken_once() {
        let interim = Interim::default();
        assert_eq!(interim.take(), None);
        interim.offer(fields("1"));
        interim.offer(fields("2"));
        assert_eq!(interim.take(), Some(fields("1")));
        assert_eq!(interim.take(), None);
        interim.offer(fields("3"));
        interim.withdraw();
        assert_eq!(interim.take(), None);
    }
}
