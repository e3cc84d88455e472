//! The way of a token from its bytes to a verdict: nothing panics, and what nobody has signed is not
//! believed.
#![no_main]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portcullis::clock::{Clock, SystemClock};
use portcullis::secret::Secret;
use portcullis::telemetry::TokenMetrics;
use portcullis::token::{
    Algorithm, CacheSettings, KeySource, ProviderSettings, Rules, Settings, Verifier,
};

/// A provider with a secret that the fuzzer does not know.
fn verifier() -> Verifier {
    let provider = ProviderSettings {
        name: "fuzz".into(),
        source: KeySource::Secret {
            secret: Secret::new("a secret that no input can be signed with"),
            key_id: None,
            algorithm: Algorithm::Hs256,
        },
        issuers: vec!["i".into()],
        rules: Rules {
            audiences: vec![],
            leeway: Duration::from_secs(30),
            allow_no_expiry: true,
            subject_claims: vec!["sub".into()],
            kind_claim: "type".into(),
            kinds: vec!["0".into()],
            require_kind: false,
        },
        introspect: false,
    };
    let settings = Settings {
        max_size: 4096,
        cache: CacheSettings {
            entries: 0,
            ttl: Duration::from_secs(1),
            refused_entries: 0,
            refused_ttl: Duration::from_secs(1),
        },
        providers: vec![provider],
        api_keys: None,
        introspection: None,
        revocations: None,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let verifier = Verifier::load(&settings, None, &clock, TokenMetrics::default());
    verifier.expect("the settings are good")
}

fuzz_target!(|token: &str| {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    let verifier = VERIFIER.get_or_init(verifier);
    let _ = verifier.recognises(token);
    let token = Secret::new(token);
    let mut verdict = pin!(verifier.verify(&token, 1_739_290_600));
    // Keys that are here are not waited for.
    let Poll::Ready(verdict) = verdict.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a token is waited for");
    };
    assert!(verdict.is_err());
});
