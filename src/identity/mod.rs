//! Who a device is, read from the DER of its verified certificate and from nothing else.
//!
//! The common name is the client secret, so it goes into a [`Secret`]; logs, metrics and balancing
//! know a device by the SHA-256 fingerprint of its certificate. What else the certificate says is
//! read when something asks for it ([`Template`]).

mod description;
mod distinguished_name;
mod names;
mod subject;
mod template;

use std::sync::OnceLock;

pub use description::Description;
pub use distinguished_name::DistinguishedName;
pub use names::Names;
pub use subject::{SubjectError, common_name};
pub use template::{Template, TemplateError};

use crate::secret::Secret;
use crate::tls::VerifiedPeer;

/// A device that has proven possession of its certificate's key.
#[derive(Debug)]
pub struct DeviceIdentity {
    peer: VerifiedPeer,
    client_secret: Result<Secret, SubjectError>,
    names: OnceLock<Box<Names>>,
}

impl DeviceIdentity {
    /// Reads the identity out of `peer`'s certificate.
    #[must_use]
    pub fn new(peer: VerifiedPeer) -> Self {
        Self {
            client_secret: subject::common_name(peer.subject()),
            peer,
            names: OnceLock::new(),
        }
    }

    /// The chain that it has shown.
    #[must_use]
    pub fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// SHA-256 of the certificate, lowercase hexadecimal: the name that logs use.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.peer.fingerprint()
    }

    /// The secret that the certificate carries in its common name.
    ///
    /// # Errors
    /// [`SubjectError`] if the subject does not hold exactly one usable common name.
    pub fn client_secret(&self) -> Result<&Secret, SubjectError> {
        self.client_secret.as_ref().map_err(|error| *error)
    }

    /// What the certificate says besides its common name; read once, when first asked for.
    #[must_use]
    pub fn names(&self) -> &Names {
        let read = || Box::new(Names::read(self.peer.leaf()));
        self.names.get_or_init(read)
    }

    /// The certificate in words. Not remembered: whoever asks keeps what it makes of it.
    #[must_use]
    pub fn describe(&self) -> Option<Description> {
        Description::read(self.peer.leaf())
    }

    /// Whether the certificate has expired at `now` (seconds since the Unix epoch).
    #[must_use]
    pub fn has_expired(&self, now: u64) -> bool {
        now > self.not_after()
    }

    /// When the certificate expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.peer.not_after()
    }
}
