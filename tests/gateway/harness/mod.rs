//! What a test needs around a gateway: certificates, an origin behind it, clients in front.

use std::time::Duration;

pub mod broker;
pub mod ca;
pub mod client;
pub mod decider;
pub mod demo;
pub mod der;
pub mod frames;
pub mod issuer;
pub mod kept;
pub mod lab;
pub mod mqtt;
pub mod multiplexed;
pub mod openssl;
pub mod origin;
pub mod platform;
pub mod process;
pub mod scripted;
pub mod secure;
pub mod session;
pub mod streams;

pub use broker::Broker;
pub use ca::{Authority, Identity};
pub use client::{Answer, Client, Protocol};
pub use kept::Kept;
pub use lab::Lab;
pub use multiplexed::Multiplexed;
pub use origin::Origin;
pub use platform::Platform;
pub use process::{Process, Site};
pub use scripted::Scripted;
pub use secure::Secure;
pub use session::Session;

/// Longer than anything here takes; a test that meets it has hung.
pub const PATIENCE: Duration = Duration::from_secs(30);
