//! What every connection must hear of: that the configuration has been replaced, or that the
//! gateway is draining.

use std::future::pending;

use tokio::sync::watch;

/// Where the gateway is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Phase {
    /// Grows with every reload.
    reloads: u64,
    /// Grows when a reload changes how clients are known.
    regimes: u64,
    /// Grows when tokens are revoked.
    revocations: u64,
    draining: bool,
}

/// What has happened since a connection last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// New rules are in force; clients are known in the same way as before.
    Reloaded,
    /// Tokens have been revoked; all else is as it was.
    Revoked,
    /// Some clients are known in another way: no request that the former one would admit is let in now.
    Superseded,
    /// No new connections; those that are open finish what they are doing.
    Draining,
}

/// The side of the composition root, which announces.
#[derive(Debug, Default)]
pub struct Lifecycle(watch::Sender<Phase>);

/// The side of a connection, which listens.
#[derive(Debug, Clone)]
pub struct Remote {
    receiver: watch::Receiver<Phase>,
    /// What has been heard of, but that the regime stays the one that the connection has begun under.
    heard: Phase,
}

impl Lifecycle {
    /// A listener of its own for one task. It hears of a drain even if that was announced before;
    /// of reloads only those to come.
    #[must_use]
    pub fn subscribe(&self) -> Remote {
        let mut receiver = self.0.subscribe();
        if self.is_draining() {
            receiver.mark_changed();
        }
        let heard = Phase {
            draining: false,
            ..*receiver.borrow()
        };
        Remote { receiver, heard }
    }

    /// Announces that new rules are in force.
    pub fn reloaded(&self) {
        self.0.send_modify(|phase| phase.reloads += 1);
    }

    /// Announces new rules under which clients are known in another way.
    pub fn superseded(&self) {
        self.0.send_modify(|phase| phase.regimes += 1);
    }

    /// Announces that tokens have been revoked.
    pub fn revoked(&self) {
        self.0.send_modify(|phase| phase.revocations += 1);
    }

    /// Announces the drain.
    pub fn drain(&self) {
        self.0.send_modify(|phase| phase.draining = true);
    }

    /// Whether the drain has been announced.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }
}

impl Remote {
    /// Waits for the next announcement since the last one heard here. If the gateway is gone
    /// without a word, that is a drain. The drain is heard of once, whatever comes with it or behind
    /// it. Cancel-safe.
    pub async fn changed(&mut self) -> Announcement {
        let is_gone = self.receiver.changed().await.is_err();
        let phase = *self.receiver.borrow_and_update();
        if (is_gone || phase.draining) && !self.heard.draining {
            self.heard.draining = true;
            if !is_gone && phase != self.heard {
                self.receiver.mark_changed();
            }
            return Announcement::Draining;
        }
        if is_gone {
            return pending().await;
        }
        if phase.regimes != self.heard.regimes {
            return Announcement::Superseded;
        }
        let is_reloaded = phase.reloads != self.heard.reloads;
        self.heard = phase;
        match is_reloaded {
            true => Announcement::Reloaded,
            false => Announcement::Revoked,
        }
    }

    /// Waits for the drain. Cancel-safe.
    pub async fn draining(&mut self) {
        // An error means that the gateway is gone, which is a drain too.
        let _ = self.receiver.wait_for(|phase| phase.draining).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_is_heard_by_those_who_come_late() {
        let lifecycle = Lifecycle::default();
        lifecycle.reloaded();
        let mut early = lifecycle.subscribe();
        lifecycle.reloaded();
        lifecycle.revoked();
        assert_eq!(early.changed().await, Announcement::Reloaded);
        lifecycle.revoked();
        assert_eq!(early.changed().await, Announcement::Revoked);
        lifecycle.superseded();
        assert_eq!(early.changed().await, Announcement::Superseded);
        lifecycle.drain();
        assert_eq!(early.changed().await, Announcement::Draining);
        assert_eq!(
            lifecycle.subscribe().changed().await,
            Announcement::Draining
        );
    }

    #[tokio::test]
    async fn what_comes_with_a_drain_or_behind_it_is_heard_as_well() {
        let lifecycle = Lifecycle::default();
        let mut remote = lifecycle.subscribe();
        lifecycle.revoked();
        lifecycle.drain();
        assert_eq!(remote.changed().await, Announcement::Draining);
        assert_eq!(remote.changed().await, Announcement::Revoked);
        lifecycle.revoked();
        assert_eq!(remote.changed().await, Announcement::Revoked);
        drop(lifecycle);
        hears_nothing(&mut remote).await;
    }

    #[tokio::test]
    async fn a_gateway_that_is_gone_is_a_drain_once() {
        let lifecycle = Lifecycle::default();
        let mut remote = lifecycle.subscribe();
        drop(lifecycle);
        assert_eq!(remote.changed().await, Announcement::Draining);
        hears_nothing(&mut remote).await;
    }

    async fn hears_nothing(remote: &mut Remote) {
        tokio::select! {
            biased;
            heard = remote.changed() => panic!("{heard:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
}
