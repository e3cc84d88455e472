//! The gateway from outside: real sockets, real TLS, real clients, one binary.

#![allow(unreachable_pub, reason = "a test binary has no other crate to reach")]

mod api_keys;
mod atom;
mod bindings;
mod callout_grpc;
mod callout_requests;
mod callouts;
mod certificates;
mod connect;
mod connection_age;
mod credentials;
mod crowd;
mod deadlines;
mod descriptors;
mod extended_connect;
mod fields;
mod floods;
mod forward_certificate;
mod forwarding;
mod framing;
mod harness;
mod http2_heads;
mod introspection;
mod isolation;
mod legacy;
mod lifecycle;
mod mqtt;
mod oidc_provider;
mod parity;
mod proxied;
mod resumption;
mod revocations;
mod routing;
mod secrecy;
mod server_names;
mod specification;
mod streaming;
mod token_claims;
mod token_keys;
mod token_sessions;
mod tokens;
mod total_timeout;
mod trust_files;
mod upstreams;
mod websocket;
