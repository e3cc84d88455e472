//! The keys of `[tokens]`, `[providers]`, `[api_keys]`, `[introspection]` and `[revocations]`.

use std::path::Path;
use std::time::Duration;

use super::document::Section;
use super::value::{Raw, boolean, count, duration, list, one_of, size, text};
use crate::fetch::{self, Url};
use crate::http::TokenPlaces;
use crate::secret::Secret;
use crate::token::{
    Algorithm, ApiKeySettings, Asker, CacheSettings, IntrospectionSettings, KeySource, Location,
    ProviderSettings, RemoteSettings, RevocationSettings, Rules, Settings,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Where a provider's keys come from.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Secret,
    Pem,
    JwksFile,
    Jwks,
    Oidc,
}

const KINDS: &[(&str, Kind)] = &[
    ("secret", Kind::Secret),
    ("pem", Kind::Pem),
    ("jwks_file", Kind::JwksFile),
    ("jwks", Kind::Jwks),
    ("oidc", Kind::Oidc),
];

/// Whose introspection is spoken.
#[derive(Debug, Clone, Copy)]
enum Introspected {
    Rfc7662,
    Atom,
}

const INTROSPECTED: &[(&str, Introspected)] = &[
    ("rfc7662", Introspected::Rfc7662),
    ("atom", Introspected::Atom),
];

/// What a platform's tokens are like, so that not every key has to be written down.
#[derive(Debug, Clone, Copy)]
enum Profile {
    /// None in particular.
    None,
    /// SuperMQ until 0.18: HS512 with a shared secret.
    SupermqHs,
    /// SuperMQ from 0.19: `EdDSA`, published by its auth service.
    SupermqJwks,
    /// Atom: ES256, published at `/.well-known/jwks.json`.
    Atom,
}

const PROFILES: &[(&str, Profile)] = &[
    ("none", Profile::None),
    ("supermq-hs", Profile::SupermqHs),
    ("supermq-jwks", Profile::SupermqJwks),
    ("atom", Profile::Atom),
];

/// What a profile says where the configuration does not.
struct Defaults {
    kind: Option<Kind>,
    issuers: Option<&'static [&'static str]>,
    audiences: &'static [&'static str],
    subject_claims: &'static [&'static str],
    types: &'static [&'static str],
    require_type: bool,
    algorithms: Option<Algorithm>,
}

impl Profile {
    fn defaults(self) -> Defaults {
        let none = Defaults {
            kind: None,
            issuers: None,
            audiences: &[],
            subject_claims: &["sub"],
            types: &["0", "access"],
            require_type: false,
            algorithms: None,
        };
        let supermq = Defaults {
            issuers: Some(&["supermq.auth"]),
            subject_claims: &["sub", "user"],
            types: &["0"],
            require_type: true,
            ..none
        };
        match self {
            Self::None => none,
            Self::SupermqHs => Defaults {
                kind: Some(Kind::Secret),
                algorithms: Some(Algorithm::Hs512),
                ..supermq
            },
            Self::SupermqJwks => Defaults {
                kind: Some(Kind::Jwks),
                algorithms: Some(Algorithm::EdDsa),
                ..supermq
            },
            Self::Atom => Defaults {
                kind: Some(Kind::Jwks),
                algorithms: Some(Algorithm::Es256),
                audiences: &["magistrala"],
                ..none
            },
        }
    }
}

/// What tokens must be, and whose they may be.
pub(super) fn tokens(section: Section<'_, '_>, root: &Section<'_, '_>, base: &Path) -> Settings {
    /// Longer ones fit no header.
    const MOST: u64 = 1 << 20;
    let max_size = section.read("max_size", 8 << 10, |raw| match size(raw)? {
        amount @ 1..=MOST => Ok(amount),
        _ => Err(format!("must be from 1B to {MOST}B")),
    });
    let entries = |name, default| {
        let number: usize = section.read(name, default, count(0..=100_000_000));
        u64::try_from(number).unwrap_or(u64::MAX)
    };
    let cache = CacheSettings {
        entries: entries("cache_entries", 100_000),
        ttl: section.read("cache_ttl", 300 * SECOND, duration),
        refused_entries: entries("refused_entries", 10_000),
        refused_ttl: section.read("refused_ttl", 30 * SECOND, duration),
    };
    section.finish();
    let introspection = introspection(root.section("introspection"), base);
    let api_keys = api_keys(root.section("api_keys"), base);
    if let (Some(keys), Some(others)) = (&api_keys, &introspection)
        && let Some(prefix) = keys
            .prefixes
            .iter()
            .find(|key| others.prefixes.contains(key))
    {
        let message = format!("\"{prefix}\" is of [api_keys] already, which would be asked alone");
        root.section("introspection").problem("prefixes", message);
    }
    Settings {
        max_size: usize::try_from(max_size).unwrap_or(usize::MAX),
        cache,
        providers: providers(root, base, introspection.is_some()),
        api_keys,
        introspection,
        revocations: revocations(root.section("revocations"), base),
    }
}

fn revocations(section: Section<'_, '_>, base: &Path) -> Option<RevocationSettings> {
    let file = section.read_optional("list", |raw| Ok(base.join(text(raw)?)));
    let most = section.read("max_entries", 10_000, count(1..=1_000_000));
    section.finish();
    Some(RevocationSettings { file: file?, most })
}

fn api_keys(section: Section<'_, '_>, base: &Path) -> Option<ApiKeySettings> {
    let file = section.read_optional("list", |raw| Ok(base.join(text(raw)?)));
    let prefixes = section.read("prefixes", owned(&["pck_"]), prefixes);
    section.finish();
    Some(ApiKeySettings {
        file: file?,
        prefixes,
    })
}

fn introspection(section: Section<'_, '_>, base: &Path) -> Option<IntrospectionSettings> {
    /// No token says as much.
    const MOST: usize = 64 << 10;
    let url = section.read_optional("url", url);
    let kind = section.read("kind", Introspected::Rfc7662, one_of(INTROSPECTED));
    let client_id = section.read_optional("client_id", text);
    let client_secret = section.read_optional("client_secret", |raw| text(raw).map(Secret::new));
    let prefixes = section.read("prefixes", vec![], |raw| {
        list(raw.clone()).and_then(|items| match items.as_slice() {
            [] => Ok(items),
            _ => prefixes(raw),
        })
    });
    let subjects = match kind {
        Introspected::Rfc7662 => owned(&["sub", "username"]),
        Introspected::Atom => owned(&["entity_id"]),
    };
    let ttl = section.read("cache_ttl", 30 * SECOND, duration);
    let recheck = section.read("recheck", 300 * SECOND, duration);
    let rules = Rules {
        audiences: section.read("audiences", vec![], list),
        leeway: Duration::ZERO,
        // The server says whether it is active at all.
        allow_no_expiry: true,
        subject_claims: section.read("subject_claims", subjects, list),
        // RFC 7662 §2.2: a refresh token is active too, but no bearer token.
        kind_claim: "token_type".into(),
        kinds: owned(&["Bearer", "bearer", "access_token"]),
        require_kind: false,
    };
    let fetch = fetch::Settings {
        timeout: section.read("timeout", 2 * SECOND, duration),
        max_size: MOST,
        ca: section.read("ca", vec![], |raw| {
            Ok(list(raw)?.into_iter().map(|file| base.join(file)).collect())
        }),
        allow_http: section.read("danger_allow_http", false, boolean),
        idle_connections: 16,
        version: fetch::Version::Http1,
    };
    let Some(url) = url else {
        section.finish();
        return None;
    };
    if url.scheme() == "http" && !fetch.allow_http {
        let message = "is false, but tokens would go by http, where anybody can read them";
        section.problem("danger_allow_http", message);
    }
    let asker = asker(&section, kind, client_id, client_secret);
    section.finish();
    Some(IntrospectionSettings {
        url,
        asker: asker?,
        prefixes,
        ttl,
        recheck,
        rules,
        fetch,
    })
}

/// RFC 7662 wants the gateway to say who it is; Atom has no place for that.
fn asker(
    section: &Section<'_, '_>,
    kind: Introspected,
    client_id: Option<String>,
    client_secret: Option<Secret>,
) -> Option<Asker> {
    let given = [
        ("client_id", client_id.is_some()),
        ("client_secret", client_secret.is_some()),
    ];
    for (name, is_given) in given {
        match (kind, is_given) {
            (Introspected::Rfc7662, false) => section.problem(name, "is missing"),
            (Introspected::Atom, true) => {
                section.problem(name, "has no meaning where kind = \"atom\"");
            }
            (Introspected::Rfc7662, true) | (Introspected::Atom, false) => {}
        }
    }
    match kind {
        Introspected::Atom => Some(Asker::Bearer),
        Introspected::Rfc7662 => Some(Asker::Gateway {
            client_id: client_id?,
            client_secret: client_secret?,
        }),
    }
}

/// What tells a key from a JWT and from a client secret.
fn prefixes(raw: Raw) -> Result<Vec<String>, String> {
    let items = at_least_one(raw)?;
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_prefix = |item: &String| item.strip_suffix('_').is_some_and(is_word);
    match items.iter().find(|item| !is_prefix(item)) {
        Some(item) => Err(format!(
            "\"{item}\" is not letters and digits before one \"_\""
        )),
        None => Ok(items),
    }
}

/// Where tokens may stand when a WebSocket is opened.
pub(super) fn token_places(section: &Section<'_, '_>) -> TokenPlaces {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let plain = |raw| match text(raw)? {
        name if name.bytes().all(is_plain) => Ok(name),
        name => Err(format!("\"{name}\" must be letters, digits, -, _ and .")),
    };
    TokenPlaces {
        query: section.read_optional("websocket_query", plain),
        subprotocol: section.read_optional("websocket_subprotocol", plain),
    }
}

fn providers(root: &Section<'_, '_>, base: &Path, is_introspected: bool) -> Vec<ProviderSettings> {
    let all = root.section("providers");
    let mut providers = Vec::new();
    for (name, section) in all.named_sections() {
        providers.extend(provider(&section, name, base, is_introspected));
        section.finish();
    }
    all.finish();
    providers
}

fn provider(
    section: &Section<'_, '_>,
    name: String,
    base: &Path,
    is_introspected: bool,
) -> Option<ProviderSettings> {
    let profile = section.read("profile", Profile::None, one_of(PROFILES));
    let defaults = profile.defaults();
    let kind = match defaults.kind {
        Some(kind) => Some(section.read("kind", kind, one_of(KINDS))),
        None => section.read_required("kind", one_of(KINDS)),
    };
    let issuers = match defaults.issuers {
        Some(issuers) => Some(section.read("issuers", owned(issuers), at_least_one)),
        None => section.read_required("issuers", at_least_one),
    };
    let rules = Rules {
        audiences: section.read("audiences", owned(defaults.audiences), list),
        leeway: section.read("leeway", 30 * SECOND, duration),
        allow_no_expiry: section.read("danger_accept_without_exp", false, boolean),
        subject_claims: section.read("subject_claims", owned(defaults.subject_claims), list),
        kind_claim: section.read("type_claim", "type".to_owned(), text),
        kinds: section.read("types", owned(defaults.types), list),
        require_kind: section.read("require_type", defaults.require_type, boolean),
    };
    let introspect = section.read("introspect", false, boolean);
    if introspect && !is_introspected {
        let message = "is true, but nobody can be asked: there is no introspection.url";
        section.problem("introspect", message);
    }
    let source = match kind? {
        Kind::Secret => shared_secret(section, &defaults),
        Kind::Pem => pem(section, base),
        Kind::JwksFile => jwks_file(section, &defaults, base),
        Kind::Jwks => {
            let url = section.read_required("url", url);
            remote(section, &defaults, base, url.map(Location::Jwks))
        }
        Kind::Oidc => {
            let location = discovery(section, issuers.as_deref().unwrap_or_default());
            remote(section, &defaults, base, location)
        }
    };
    Some(ProviderSettings {
        name,
        source: source?,
        issuers: issuers?,
        rules,
        introspect,
    })
}

fn shared_secret(section: &Section<'_, '_>, defaults: &Defaults) -> Option<KeySource> {
    let secret = section.read_required("secret", |raw| text(raw).map(Secret::new));
    let key_id = section.read_optional("key_id", text);
    let default = vec![defaults.algorithms.unwrap_or(Algorithm::Hs512)];
    let chosen = section.read("algorithms", default, algorithms);
    let &[algorithm] = chosen.as_slice() else {
        section.problem(
            "algorithms",
            "must be one algorithm, since a secret has one",
        );
        return None;
    };
    if !algorithm.is_symmetric() {
        let message = "must be HS256, HS384 or HS512 where kind = \"secret\"";
        section.problem("algorithms", message);
    }
    Some(KeySource::Secret {
        secret: secret?,
        key_id,
        algorithm,
    })
}

fn pem(section: &Section<'_, '_>, base: &Path) -> Option<KeySource> {
    let files = section.read_required("key_files", at_least_one);
    let algorithms = section.read_required("algorithms", algorithms)?;
    refuse_symmetric(section, &algorithms);
    Some(KeySource::Pem {
        files: files?.into_iter().map(|file| base.join(file)).collect(),
        algorithms,
    })
}

fn jwks_file(section: &Section<'_, '_>, defaults: &Defaults, base: &Path) -> Option<KeySource> {
    let file = section.read_required("key_set", |raw| Ok(base.join(text(raw)?)));
    Some(KeySource::JwksFile {
        file: file?,
        algorithms: published_algorithms(section, defaults),
    })
}

fn remote(
    section: &Section<'_, '_>,
    defaults: &Defaults,
    base: &Path,
    location: Option<Location>,
) -> Option<KeySource> {
    /// No issuer has as many keys.
    const MOST: usize = 512 << 10;
    let path = |raw| Ok(base.join(text(raw)?));
    let settings = RemoteSettings {
        algorithms: published_algorithms(section, defaults),
        refresh: section.read("refresh", HOUR, duration),
        min_refresh: section.read("min_refresh", 30 * SECOND, duration),
        stale_for: section.read("stale_for", 24 * HOUR, duration),
        keep_in: section.read_optional("keep_in", path),
        fetch: fetch::Settings {
            timeout: section.read("timeout", 5 * SECOND, duration),
            max_size: MOST,
            ca: section.read("ca", vec![], |raw| {
                Ok(list(raw)?.into_iter().map(|file| base.join(file)).collect())
            }),
            allow_http: section.read("danger_allow_http", false, boolean),
            // Documents are fetched every few minutes at most.
            idle_connections: 0,
            version: fetch::Version::Http1,
        },
        location: location?,
    };
    let (Location::Jwks(url) | Location::Discovery { url, .. }) = &settings.location;
    if url.scheme() == "http" && !settings.fetch.allow_http {
        let message = "is false, but the keys would come by http, where anybody can change them";
        section.problem("danger_allow_http", message);
    }
    if settings.min_refresh > settings.refresh {
        section.problem("min_refresh", "must not be longer than refresh");
    }
    Some(KeySource::Remote(Box::new(settings)))
}

/// The configuration of the one issuer (OpenID Connect Discovery 1.0 §4).
fn discovery(section: &Section<'_, '_>, issuers: &[String]) -> Option<Location> {
    let [issuer] = issuers else {
        section.problem(
            "issuers",
            "must be one, the issuer's URL, where kind = \"oidc\"",
        );
        return None;
    };
    let address = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    match url(Raw::Text(address)) {
        Ok(url) => Some(Location::Discovery {
            issuer: issuer.clone(),
            url,
        }),
        Err(_) => {
            section.problem("issuers", format!("\"{issuer}\" is no http(s) URL"));
            None
        }
    }
}

/// The algorithms that published keys may be for: every one for which no secret is needed.
fn published_algorithms(section: &Section<'_, '_>, defaults: &Defaults) -> Vec<Algorithm> {
    let all = Algorithm::ALL.iter().map(|(_, algorithm)| *algorithm);
    let default = match defaults.algorithms {
        Some(algorithm) => vec![algorithm],
        None => all.filter(|algorithm| !algorithm.is_symmetric()).collect(),
    };
    let chosen = section.read("algorithms", default, algorithms);
    refuse_symmetric(section, &chosen);
    chosen
}

fn refuse_symmetric(section: &Section<'_, '_>, algorithms: &[Algorithm]) {
    if algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
        let message = "must not be HS256, HS384 or HS512 but where kind = \"secret\": everybody may \
                       know a public key, and could sign with it";
        section.problem("algorithms", message);
    }
}

pub(super) fn url(raw: Raw) -> Result<Url, String> {
    let text = text(raw)?;
    let url = Url::parse(&text).map_err(|error| format!("\"{text}\": {error}"))?;
    if !matches!(url.scheme(), "https" | "http") || !url.username().is_empty() {
        return Err(format!("\"{text}\" is no http(s) URL without a user name"));
    }
    Ok(url)
}

fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn at_least_one(raw: Raw) -> Result<Vec<String>, String> {
    let items = list(raw)?;
    if items.is_empty() || items.iter().any(String::is_empty) {
        return Err("must hold at least one, and none that is empty".into());
    }
    Ok(items)
}

fn algorithms(raw: Raw) -> Result<Vec<Algorithm>, String> {
    let parse = |name: &String| {
        Algorithm::parse(name).ok_or_else(|| {
            let known: Vec<&str> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
            format!("\"{name}\" is none of {}", known.join(", "))
        })
    };
    at_least_one(raw)?.iter().map(parse).collect()
}
