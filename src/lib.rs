//! Portcullis, a TLS front door for device fleets.
//!
//! # Life of a request
//!
//! 1. [`listener`] accepts a socket, if there is room for one more, and reads whom it is from if a
//!    proxy stands in front.
//! 2. [`tls`] carries out the handshake under the policy that the client's server name selects, and
//!    yields a [`tls::VerifiedPeer`] if the client has shown a certificate that passes.
//! 3. [`identity`] reads who that is: exactly one common name, which is the client secret, or what
//!    an [`access::Binding`] takes instead.
//!    [`access::Connection`] keeps it for as long as the connection lives.
//! 4. [`http`] reads requests. [`route`] normalises the path and finds where it leads and what that
//!    demands.
//! 5. [`credential`] collects everything the request presents, from header and query alike.
//! 6. [`access`] decides: [`access::Gate::admit`] compares the two and yields an
//!    [`access::Admission`], or a [`access::Refusal`], which [`http`] puts into its own words.
//!    Bearer tokens are verified by [`token`], for routes that demand a user; a [`callout`] asks
//!    another service about clients.
//!    [`quota`] counts what each client asks for.
//! 7. [`http`] removes what clients must not say, sets `Authorization: Client <secret>`, and an
//!    [`assertion`] where one is asked for, and sends the request to an [`upstream`], streaming both
//!    bodies; or [`websocket`] opens a tunnel.
//! 8. [`telemetry`] counts and logs what happened, without any secret.
//!
//! Beside the flow stand [`admin`], the private listener; [`config`], which turns the file and the
//! environment into every room's settings; and [`gateway`], which puts them all together.

// The documentation is for those who work here: it walks into private rooms too.
#![allow(rustdoc::private_intra_doc_links)]

pub mod access;
pub mod admin;
pub mod assertion;
pub mod callout;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod fetch;
pub mod gateway;
pub mod host;
pub mod http;
pub mod identity;
pub mod listener;
pub mod mqtt;
pub mod quota;
pub mod relay;
pub mod route;
pub mod secret;
pub mod socket;
pub mod tally;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod upstream;
pub mod websocket;
