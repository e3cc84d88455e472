//! Whose turn it is while a connection has something to do.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::task::yield_now;

use super::Protocol;
use super::watch::Progress;

/// Drives a connection to its end. One of HTTP/2 that has requests under way lets others go first each
/// time that it is woken: what they do, and what has arrived meanwhile, may be answers to those, and then
/// all are written at once.
pub(super) async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    progress: &Progress,
    protocol: Protocol,
) -> C::Output {
    loop {
        progress.turn();
        let polled = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx)));
        if let Poll::Ready(outcome) = polled.await {
            return outcome;
        }
        woken().await;
        if protocol == Protocol::Http2 && progress.is_active() {
            yield_now().await;
        }
    }
}

/// Waits until something wakes the task.
async fn woken() {
    let mut is_woken = false;
    poll_fn(|_| match std::mem::replace(&mut is_woken, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// Who goes first when a connection is woken, and after it another task: `c` the connection,
    /// `o` the other. It ends when it has been driven twice.
    async fn order(protocol: Protocol, requests: usize) -> String {
        let log = Rc::new(RefCell::new(String::new()));
        let waker = Rc::new(RefCell::new(Waker::noop().clone()));
        let connection = spawn_local({
            let (log, waker) = (Rc::clone(&log), Rc::clone(&waker));
            let progress = Progress::default();
            (0..requests).for_each(|_| assert!(progress.begin(false).is_none()));
            async move {
                let connection = poll_fn(|cx| {
                    log.borrow_mut().push('c');
                    waker.replace(cx.waker().clone());
                    match log.borrow().matches('c').count() {
                        2.. => Poll::Ready(()),
                        _ => Poll::Pending,
                    }
                });
                drive(pin!(connection), &progress, protocol).await;
            }
        });
        yield_now().await;
        waker.borrow().wake_by_ref();
        let other = spawn_local({
            let log = Rc::clone(&log);
            async move { log.borrow_mut().push('o') }
        });
        connection.await.unwrap();
        other.await.unwrap();
        log.take()
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_answers_lets_others_go_first() {
        let local = LocalSet::new();
        let order = |protocol, requests| local.run_until(order(protocol, requests));
        assert_eq!(order(Protocol::Http2, 1).await, "coc");
        assert_eq!(order(Protocol::Http2, 2).await, "coc");
        // There is nothing to wait for.
        assert_eq!(order(Protocol::Http2, 0).await, "cco");
        // It waits for one answer at most, and is told of that by the answer.
        assert_eq!(order(Protocol::Http1, 1).await, "cco");
    }
}
