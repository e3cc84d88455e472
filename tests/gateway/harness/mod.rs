//! What a test needs around a gateway: certificates, an origin behind it, clients in front.

pub mod ca;
pub mod client;
pub mod demo;
pub mod der;
pub mod lab;
pub mod openssl;
pub mod origin;
pub mod session;

pub use ca::{Authority, Identity};
pub use client::{Answer, Client, Protocol};
pub use lab::Lab;
pub use origin::Origin;
pub use session::Session;
