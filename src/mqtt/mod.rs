//! The MQTT front end. For now it holds the packet layer only.
//!
//! Owns: what stands on the wire in MQTT 3.1, 3.1.1 and 5. Does not own: who may pass; that is
//! decided by `access`, from the plain values which a [`codec::Connect`] shows.

pub mod codec;
