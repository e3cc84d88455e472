//! The PROXY protocol header of a peer in front, and the names of a certificate: nothing panics, and
//! a header that is taken is taken whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::identity::Names;
use portcullis::listener::proxied::parse;

fuzz_target!(|data: &[u8]| {
    let _ = Names::read(data);
    if parse(data).is_ok() {
        assert!(parse(&data[..data.len() - 1]).is_err());
    }
});
