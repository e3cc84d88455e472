//! The DER of a subject: nothing panics, and what comes out may stand in a header field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::identity::common_name;

fuzz_target!(|data: &[u8]| {
    if let Ok(secret) = common_name(data) {
        let text = secret.expose();
        assert!(!text.is_empty() && text.trim() == text && !text.chars().any(char::is_control));
    }
});
