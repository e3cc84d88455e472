//! What a test needs around a gateway: certificates, an origin behind it, clients in front.

pub mod ca;
pub mod client;
pub mod kept;
pub mod lab;
pub mod origin;
pub mod scripted;

pub use ca::{Authority, Identity};
pub use client::{Answer, Client, Protocol};
pub use kept::Kept;
pub use lab::Lab;
pub use origin::Origin;
pub use scripted::Scripted;
