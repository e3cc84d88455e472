//! What every connection must hear of: that the configuration has been replaced, or that the
//! gateway is draining.

use tokio::sync::watch;

/// Where the gateway is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Serving; the number grows with every reload.
    Serving(u64),
    /// No new connections; those that are open finish what they are doing.
    Draining,
}

/// The side of the composition root, which announces.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

/// The side of a connection, which listens.
#[derive(Debug, Clone)]
pub struct Remote(watch::Receiver<Phase>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving(0)))
    }
}

impl Lifecycle {
    /// A listener of its own for one task. It hears of a drain even if that was announced before;
    /// of reloads only those to come.
    #[must_use]
    pub fn subscribe(&self) -> Remote {
        let mut remote = self.0.subscribe();
        if self.is_draining() {
            remote.mark_changed();
        }
        Remote(remote)
    }

    /// Announces that new rules are in force.
    pub fn reloaded(&self) {
        self.0.send_modify(|phase| {
            if let Phase::Serving(generation) = phase {
                *generation += 1;
            }
        });
    }

    /// Announces the drain.
    pub fn drain(&self) {
        self.0.send_replace(Phase::Draining);
    }

    /// Whether the drain has been announced.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() == Phase::Draining
    }
}

impl Remote {
    /// Waits for the next announcement since the last one heard here. If the gateway is gone
    /// without a word, that is a drain. Cancel-safe.
    pub async fn changed(&mut self) -> Phase {
        match self.0.changed().await {
            Ok(()) => *self.0.borrow_and_update(),
            Err(_) => Phase::Draining,
        }
    }

    /// Waits for the drain. Cancel-safe.
    pub async fn draining(&mut self) {
        // An error means that the gateway is gone, which is a drain too.
        let _ = self.0.wait_for(|phase| *phase == Phase::Draining).await;
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
        assert_eq!(early.changed().await, Phase::Serving(2));
        lifecycle.drain();
        assert_eq!(early.changed().await, Phase::Draining);
        assert_eq!(lifecycle.subscribe().changed().await, Phase::Draining);
    }
}
