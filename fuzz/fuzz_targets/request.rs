//! What stands in a request: path, query, `Authorization`, and requests on the wire. Nothing
//! panics; a normal path stays as it is; no credential stays in a forwarded query; requests
//! mean the same however they are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::credential::{ForwardedQuery, Presented, split_credentials};
use portcullis::http::RequestScan;
use portcullis::route::normalise;

fuzz_target!(|data: &[u8]| {
    let mut presented = Presented::nothing();
    presented.add_authorization(data);
    presented.add_password(data);
    whole_and_split(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(normal) = normalise(text) {
        assert_eq!(normalise(&normal).as_deref(), Ok(&*normal));
        assert!(normal.split('/').all(|segment| segment != ".." && segment != "."));
    }
    let mut presented = Presented::nothing();
    if let ForwardedQuery::Without(Some(rest)) = split_credentials(text, Some("access_token"), &mut presented) {
        assert!(!presented.claims().is_empty());
        let mut again = Presented::nothing();
        assert_eq!(split_credentials(&rest, Some("access_token"), &mut again), ForwardedQuery::Unchanged);
    }
});

fn whole_and_split(data: &[u8]) {
    let mut whole = RequestScan::default();
    whole.feed(data);
    let cut = data.first().map_or(0, |first| usize::from(*first) % data.len());
    let (front, back) = data.split_at(cut);
    let mut split = RequestScan::default();
    split.feed(front);
    split.feed(back);
    assert_eq!(whole.offence(), split.offence());
}
