//! What all workers know of one upstream: its settings and its servers.

use std::sync::Arc;

use super::Settings;
use super::balance::Lineup;
use super::server::Server;

/// One group of servers, shared by all workers.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: Arc<Settings>,
    pub(super) lineup: Lineup,
}

impl Group {
    /// All servers that `settings` names.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let servers = settings.servers.iter().cloned();
        let servers = servers.map(|server| Arc::new(Server::new(server)));
        Self {
            lineup: Lineup::new(servers.collect()),
            settings,
        }
    }
}
