//! [`Secret`]: a value that may be compared and forwarded, never printed.
//!
//! Everything that would let somebody in (client secret, password, token) travels in this type, so
//! that no log line, error or panic message can show it by accident.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

/// Text that authenticates its bearer. `Debug` shows no part of it, `==` takes the same time
/// wherever two values of equal length differ, and its memory is zeroed when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` into keeping.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for forwarding it; every call is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self == other.expose()
    }
}

impl Eq for Secret {}

impl PartialEq<str> for Secret {
    fn eq(&self, other: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), other.as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_equals_itself_and_nothing_that_only_looks_like_it() {
        let secret = Secret::new("d7cc2964");
        assert_eq!(&secret, "d7cc2964");
        for other in [
            "",
            "d7cc296",
            "d7cc29644",
            "D7CC2964",
            " d7cc2964",
            "Client d7cc2964",
        ] {
            assert_ne!(&secret, other);
        }
    }

    #[test]
    fn debug_output_never_holds_the_secret() {
        assert!(!format!("{:?}", Some(Secret::new("d7cc2964"))).contains("d7cc"));
    }
}
