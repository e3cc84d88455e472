//! Signatures that a careless verifier takes: the classes of attack that Wycheproof's vectors are made of,
//! with keys of our own. What is signed matters little, so it is the same everywhere.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
};

use super::*;
use crate::token::jwks;

const MESSAGE: &[u8] = b"eyJhbGciOiJQUzI1NiJ9.e30";

fn key(public: &[u8], algorithm: Algorithm) -> Key {
    Key::public(None, public, &[algorithm]).unwrap()
}

/// The key pair, and its signature of the message.
fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let signature = pair.sign(&SystemRandom::new(), MESSAGE).unwrap();
    (pair, signature.as_ref().to_vec())
}

/// The order of P-256 (SP 800-186 §3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, //
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Big-endian `a + b` in as many bytes, and what is left over.
fn sum(a: &[u8], b: &[u8]) -> (Vec<u8>, u8) {
    let mut carry = 0_u16;
    let mut sum: Vec<u8> = Vec::new();
    for (a, b) in a.iter().zip(b).rev() {
        let digit = u16::from(*a) + u16::from(*b) + carry;
        sum.insert(0, digit.to_be_bytes()[1]);
        carry = digit >> 8;
    }
    (sum, carry.to_be_bytes()[1])
}

#[test]
fn an_ecdsa_signature_is_two_numbers_below_the_order_and_nothing_else() {
    let (pair, good) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let key = key(pair.public_key().as_ref(), Algorithm::Es256);
    let verifies = |signature: &[u8]| key.verifies(Algorithm::Es256, MESSAGE, signature);
    assert!(verifies(&good));
    let (r, s) = good.split_at(32);
    let (zero, most) = ([0; 32], [0xff; 32]);
    let mut one = zero;
    one[31] = 1;
    for (what, first, second) in [
        ("both zero", &zero[..], &zero[..]),
        ("r zero", &zero, s),
        ("s zero", r, &zero),
        ("both one", &one, &one),
        ("r is the order", &ORDER, s),
        ("s is the order", r, &ORDER),
        ("both are the order", &ORDER, &ORDER),
        ("r beyond it", &most, s),
        ("s beyond it", r, &most),
        ("the wrong way round", s, r),
        ("a byte too few", &r[1..], s),
        ("a byte too many", &[&[0], r].concat(), &[&[0], s].concat()),
        ("a byte behind it", r, &[s, &[0]].concat()),
        ("nothing", &[], &[]),
        ("one half", r, &[]),
        ("twice", &good, &good),
    ] {
        assert!(!verifies(&[first, second].concat()), "{what}");
    }
    // The same number once more, where it fits into 32 bytes at all.
    if let (more, 0) = sum(s, &ORDER) {
        assert!(!verifies(&[r, &more].concat()));
    }
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    let same = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let der = same.sign(&SystemRandom::new(), MESSAGE).unwrap();
    assert!(!verifies(der.as_ref()), "DER");
}

#[test]
fn a_key_verifies_by_the_algorithm_of_its_curve_alone() {
    let (p256, of_p256) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let (p384, of_p384) = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING);
    let (small, large) = (p256.public_key().as_ref(), p384.public_key().as_ref());
    for (public, algorithm, signature) in [
        (small, Algorithm::Es256, &of_p256),
        (large, Algorithm::Es384, &of_p384),
    ] {
        let key = key(public, algorithm);
        assert!(key.verifies(algorithm, MESSAGE, signature));
        for (_, other) in Algorithm::ALL
            .iter()
            .filter(|(_, other)| *other != algorithm)
        {
            assert!(!key.verifies(*other, MESSAGE, signature), "{other:?}");
            let unfit = Key::public(None, public, &[*other]);
            assert!(unfit.is_err(), "{other:?} {unfit:?}");
        }
    }
    // Whatever a key set says of it.
    let (x, y) = large[1..].split_at(48);
    for (curve, algorithm) in [("P-384", "ES256"), ("P-256", "ES256"), ("P-256", "ES384")] {
        let jwk = json!({
            "kty": "EC", "crv": curve, "alg": algorithm, "x": encode(x), "y": encode(y),
        });
        let set = json!({"keys": [jwk]}).to_string();
        let all = [Algorithm::Es256, Algorithm::Es384];
        assert!(jwks::parse(set.as_bytes(), &all).is_err(), "{jwk}");
    }
}

#[test]
fn a_public_key_is_a_point_of_its_curve_in_its_full_length() {
    let (pair, _) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let parse = |x: &[u8], y: &[u8]| {
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)});
        let set = json!({"keys": [jwk]}).to_string();
        jwks::parse(set.as_bytes(), &[Algorithm::Es256]).is_ok()
    };
    assert!(parse(x, y));
    let mut beside = y.to_vec();
    beside[31] ^= 1;
    for (x, y) in [
        (x, &beside[..]),
        (&x[1..], y),
        (x, &[&[0], y].concat()),
        (x, &[]),
        (&[0; 32], &[0; 32]),
        (&[0xff; 32], y),
    ] {
        assert!(!parse(x, y), "{x:?} {y:?}");
    }
}

#[test]
fn an_eddsa_signature_has_one_form() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = key(pair.public_key().as_ref(), Algorithm::EdDsa);
    let verifies = |signature: &[u8]| key.verifies(Algorithm::EdDsa, MESSAGE, signature);
    let good = pair.sign(MESSAGE).as_ref().to_vec();
    assert!(verifies(&good));
    /// RFC 8032 §5.1: the order, big-endian here.
    const ORDER: [u8; 32] = [
        0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
        0x14, 0xde, 0xf9, 0xde, 0xa2, 0xf7, 0x9c, 0xd6, 0x58, 0x12, 0x63, 0x1a, 0x5c, 0xf5, 0xd3,
        0xed,
    ];
    let (r, s) = good.split_at(32);
    let backwards: Vec<u8> = s.iter().rev().copied().collect();
    let (mut more, over) = sum(&backwards, &ORDER);
    more.reverse();
    assert_eq!(over, 0);
    for (what, signature) in [
        // RFC 8032 §5.1.7: the same number modulo the order, which would be a second signature.
        ("beyond the order", [r, &more].concat()),
        ("zero", vec![0; 64]),
        ("nothing", vec![]),
        ("a byte too few", good[..63].to_vec()),
        ("a byte too many", [&good[..], &[0]].concat()),
        ("s zero", [r, &[0; 32]].concat()),
        ("r zero", [&[0; 32], s].concat()),
    ] {
        assert!(!verifies(&signature), "{what}");
    }
}

#[test]
fn an_rsa_signature_has_the_padding_and_the_hash_of_its_algorithm() {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let all = [Algorithm::Rs256, Algorithm::Rs512, Algorithm::Ps256];
    let key = Key::of_pem(RSA.as_bytes(), &all).unwrap();
    for (what, signature, expected) in [
        ("PKCS #1", PKCS1, Some(Algorithm::Rs256)),
        ("PKCS #1, SHA-512", PKCS1_SHA512, Some(Algorithm::Rs512)),
        ("PKCS #1, SHA-1", PKCS1_SHA1, None),
        ("PSS, 32", PSS_32, Some(Algorithm::Ps256)),
        ("PSS, 0", PSS_0, None),
        ("PSS, 20", PSS_20, None),
        ("PSS, 64", PSS_64, None),
        ("PSS, longest", PSS_MOST, None),
        ("PSS, MGF1 with SHA-1", PSS_MGF1_SHA1, None),
    ] {
        let signature = decode(signature);
        for algorithm in all {
            let verifies = key.verifies(algorithm, MESSAGE, &signature);
            assert_eq!(
                verifies,
                expected == Some(algorithm),
                "{what} {algorithm:?}"
            );
        }
    }
    let good = decode(PKCS1);
    for (what, signature) in [
        ("nothing", vec![]),
        ("a byte too few", good[1..].to_vec()),
        ("a byte too many", [&[0], &good[..]].concat()),
        ("a byte behind it", [&good[..], &[0]].concat()),
        ("zero", vec![0; 256]),
        ("beyond the modulus", vec![0xff; 256]),
    ] {
        for algorithm in all {
            assert!(!key.verifies(algorithm, MESSAGE, &signature), "{what}");
        }
    }
}

#[test]
fn a_mac_is_whole() {
    let key = Key::of_bytes(None, SECRET.as_bytes(), Algorithm::Hs256).unwrap();
    let verifies = |mac: &[u8]| key.verifies(Algorithm::Hs256, MESSAGE, mac);
    let mac = |hash| {
        let key = hmac::Key::new(hash, SECRET.as_bytes());
        hmac::sign(&key, MESSAGE).as_ref().to_vec()
    };
    let good = mac(hmac::HMAC_SHA256);
    assert!(verifies(&good));
    let longer = mac(hmac::HMAC_SHA512);
    for length in [0, 1, 16, 31] {
        assert!(!verifies(&good[..length]), "{length}");
    }
    assert!(!verifies(&[&good[..], &[0]].concat()));
    assert!(!verifies(&longer) && !verifies(&longer[..32]));
}

const RSA: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAx7dJIyWTZawdC9s8lISt\n\
    Y7PX4ahF8SgHEsNRTrQKy4iMnB0ox1ihGJfz0/may+yg8ZSddfYshmAZBfGccM4u\n\
    p8GR/ibsiL/n0dxRQ6wmftA4VlZnjdv0OSM4qFRzJg0PLqm38TJzMkSaL4IRSAl9\n\
    rjOxi07nZm5NcjeueoWFozf66/NFjNjiy6IT2u221LTAnQd5LqWCHdJ1IlafDYCn\n\
    W0kHsA9ZpVv71z4Vp9DNXoih5tYGKqauL5Bk5VDqIVt4zEwPRY8d3CSbgFJVcDLE\n\
    yHYlZyHMjvc2uCwtiELJLbgUL6Jg5cRvEVu/PBDhZqB7PxYc4f8lEhehz4RvDWmM\n\
    MwIDAQAB\n\
    -----END PUBLIC KEY-----\n";

/// PSS with a salt as long as the hash, as RFC 7518 §3.5 has it.
const PSS_32: &str = "dUD7C6CAaVFgFK5X0AR8-\
    n3Kcf3VjF2Ob4jKaPwgTe29hH7KdNyOrsOxmwDdkohIrGhqlvZlWGadwoiXJsnb19vGVT0Japos9dVp9X1afRymG\
    xmbNoJnC_Jx0wfHVRgtGgxocMduBU7R18aD9YJP7ik5mhMSlndf96rSGSgq4XCs7btzd2e3uoehVc8mVhSmquG0h\
    N_svuJDBRXc8VeJDJ0xHOxKHYx3K6yb0Okr15_gjrBAERwPlS7GiCCz_S3F8Cd8WnT2KZgddQ-G-\
    OmQepgAwQp_EPBS8sTplJ1wN4nmVovFH6zfSQudAbi8pUI0m8vRS37f28weViK0GFPqzg";

/// Without a salt.
const PSS_0: &str = "MEYBIrc7vZa8hZOc57tkPEdkmCdkND3Zdq0K6ugdWPaUkKVb8pxSx69YZjglbJkpkakd8hRW1hJcd7NSnSq5lfBE\
    QESeBtgTtVWVKjx_W3blWCRs1A4dXBmq-\
    B6mBTT_SskDQ1l_3Vno7RT0Vp2sQozQGc4vpFldxcMuV5MbwZx7tAwSzzrd3JD4WI0lXWI5wtAGwCPX7OugkrKiw\
    KbOmli6x4IeqVjRMCCu3cT8XiyvNw5iZDphngJWC5G3-\
    ZdzIhynCXYqvUUcZpGmjiIaxIGquNu0bD57tCizTI7lrR14RQKq9PULd8T6kITBf2Ij7--\
    IQ5yqgX34-zyssCCw2w";

/// With the salt of SHA-1.
const PSS_20: &str = "A68uk2C7dOglsy5-_E_pUT_DPgbQWhQZ7WJCDHtAPekqZ71csh5eEsaykZQMfHraOXzGmEYDr6XM-kQd3cmHmKNa\
    DPIRTUGS1hgrt-6ArTheFCkzyt0qCHQSsMgAof7w4GHzq1SgitzmMbxIubyjROHGIaRDBExcaK-\
    13P2ere7w1tYIpMiYdOzCwC1UewHLH6XJDqZORStBDNcBksAB7qhL8mMvMh4HlFo2ZAwgh02Up6-\
    Whur5EWcYYRU4_ogbUGx9Gg_aSSuuYhblrBaPdFu5zjRuZP9rYoD9tdjmo_3xhqr1Ljk6gD5KdgmkwksXMb2Deea\
    gb9b6QQybNO4rIg";

/// With the salt of SHA-512.
const PSS_64: &str = "PcJAJgU-om2fmayzvWAAv-1Y6ixQ3hEWHK8LhY9FeelmuqeUs09BUWYOEOVM2YefTPnnGp-\
    KvjwPbMiEXcut5r_u_DL8pu4dnSmj0ZFDhC7_S59MxWlHag6JhVEOC-SlOs3h2nVWfsEB1P050dB1dJSryye9hc0\
    XD_AcC1mNtSn3Rq7gXmBbvND_V0byWb0stEtMeWrDy8zjKvnO7fitMjtNNVvV7o-\
    rKZxPIww39iiVNReBUagkfKihRgdvB3vn-6ZcTi8fwxZJTY9JvpFU58Pdhecrggi4F3-\
    XpPImihcLs1ij3W7hY7DXn0SOFy2zWs18C5UhkT7lv3ZH_y8lmA";

/// With the longest salt that there is room for.
const PSS_MOST: &str = "Q8x5MVGot3qQSrb4pClzqyjieY-Ctjs8Jrluyl806DXyO8YXKK69aEND7qF8UQMvFT4Is17tHODcIe4mx3vUhv5f\
    8WMXqWz05F1rGwI69lEXpQxjOL2V7W7TC1k7pfnk95TVUT-JiecVslpgEL7r6ueffK-_HWX99gYXMo8KhYzey_qd\
    UOycOcUyn7BbkGePPLKqmg3Y1mR8RLFrEvWMRUaicMUa4GQ2K1K1jpz0RIbtTwUYelyhndA89nCG-\
    nFe5XLpphqM-XmNIrH8IwSKf5HfYmaEBcw_O-w0pWhkoGGeNUV8EmmDEOucBKX6y6jgW99nKvFu--\
    HOI5Ck4QRZbQ";

/// With SHA-1 for its mask.
const PSS_MGF1_SHA1: &str = "HABN4O6z82EUfWT9t8Bbf4YpUp8FcCdUtmucX64WHuD9RxQvQRcnPWCOhlXfg86eTXPM4h9uZBeKVD1Rq3g7DDYJ\
    YyIAGXuxq57FZD-RLKrapPhYI5gDQUgGo-p_FottLbzkaknCHUJ-\
    f52_aTZnUWc8sV32rVCrEFZU25nAnwMrFxOCvllXWTrjPBBPvluJlbw5s1mmKtUl7aRB2-\
    23KqIeIOjGDX6cQnr6_hkGuU3gB3z3cXOLZwfZYu9d9D_f0cgBv9IxIrRUCfAJH93Mw3s19LyqpLVmK0KE4xj0yP\
    KPAmOAPJl2MFK0ZDFepkfVkDjzB8ImtJ4jZg2_6RdeHw";

/// PKCS #1 v1.5.
const PKCS1: &str = "bYU-kMmRs3yVTBYJkuj4IW-8Gfh0q5cCwhVOSnWlfrGnf9B0NAKSpb7zdOKRQOiNBydNIu-r-gVh8KHe-TIZpCbh\
    BMM9VQe5ZRn8pE8ZoRJpiv7wFaf1z1aIU0H48jup28S-\
    w31wOvJVatRHm9YsSoxtrO_9doqWYedlpOsA3SgkzjZnauCi8J5RmRpQfNfmx3UNX9JbcE-cqazuW6B0Dt3qxbJn\
    DdkM6HaT2nfyYICLOFRsjITn9JLWz4n2YP8Y5WwaSSp2y0x1wt8AbBRnOilPDCziUwJET0pmGRHXqd2MO1Njwsyq\
    LbverddlJjRuXa-_swZflSohKNOkYvu3Vg";

/// The same with SHA-1.
const PKCS1_SHA1: &str = "wDpJyvktI8n--JgAWnkCgO_Clh2F0XeYHOQIOFkbGdMeAbRhtUZlBwA0WGo0xULIJTc1yUf4mqmnYxUYLW3tq0JX\
    sWkcLhSdnB0nyqFTDfnvGPfU4pGeQckg-vpWBajBsperYaWmPCmfwWA1vjXv_vgZvdag_z8XkztSr1ZBxty73-\
    q7h6NBTaPmr20xBnvRtl7lYUsVEned96AltTHVyCAQYkzIGBC1i32dL15uClvv9UoSC3KCeWnoWjg2Df9MWiHBrF\
    PWCtEo6XXTCNUKJHOiIDBBK_ZN802qAeG-JMKSPb-Mao8kuUExpkUh8oAJt-1IN6DEUz-AtxifPMktpg";

/// The same with SHA-512.
const PKCS1_SHA512: &str = "MPEDrXRT_akWFFstYIxsJCQFBbSlfc-MRqnxghvZiSugi3dL4jPpCb-_-NSbrPygKTA3J54yXl0-\
    w928JMHra7R6kuiaOwIUXP4nF_GffVNcnokn1JMeUcdG4PqFpvl6dfN7bwno52y4nKEW7Mx9AH5hOu3FAnuLJEEA\
    qokXJe40kI-SJzAT9cpNlXpknFG-Vr62WUN6nN_gM_sSDZ4rbDrQQUErXXLWa5aCoDfmKje42r2ErO1FS8_SA5Da\
    j2zkmIRMYlgCXXsqVGVanjRfnEtq6_O9IduPlj0m6G2JwAakvnt8oK-KmM5MPR31Mr-ZU2Yb-\
    mmirdslU8-C_1WzlQ";
