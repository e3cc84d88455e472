//! The keys of `[tokens]` and `[providers]`.

use std::path::Path;
use std::time::Duration;

use super::document::Section;
use super::value::{Raw, boolean, duration, list, one_of, size, text};
use crate::secret::Secret;
use crate::token::{Algorithm, KeySource, ProviderSettings, Rules, Settings};

/// Where a provider's keys come from.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Secret,
    Pem,
}

const KINDS: &[(&str, Kind)] = &[("secret", Kind::Secret), ("pem", Kind::Pem)];

/// What tokens must be, and whose they may be.
pub(super) fn tokens(root: &Section<'_, '_>, base: &Path) -> Settings {
    /// Longer ones fit no header.
    const MOST: u64 = 1 << 20;
    let section = root.section("tokens");
    let max_size = section.read("max_size", 8 << 10, |raw| match size(raw)? {
        amount @ 1..=MOST => Ok(amount),
        _ => Err(format!("must be from 1B to {MOST}B")),
    });
    section.finish();
    Settings {
        max_size: usize::try_from(max_size).unwrap_or(usize::MAX),
        providers: providers(root, base),
    }
}

fn providers(root: &Section<'_, '_>, base: &Path) -> Vec<ProviderSettings> {
    let all = root.section("providers");
    let mut providers = Vec::new();
    for (name, section) in all.named_sections() {
        providers.extend(provider(&section, name, base));
        section.finish();
    }
    all.finish();
    providers
}

fn provider(section: &Section<'_, '_>, name: String, base: &Path) -> Option<ProviderSettings> {
    let kind = section.read_required("kind", one_of(KINDS));
    let issuers = section.read_required("issuers", at_least_one);
    let rules = Rules {
        audiences: section.read("audiences", vec![], list),
        leeway: section.read("leeway", Duration::from_secs(30), duration),
        allow_no_expiry: section.read("danger_accept_without_exp", false, boolean),
        subject_claims: section.read("subject_claims", vec!["sub".to_owned()], list),
        kind_claim: section.read("type_claim", "type".to_owned(), text),
        kinds: section.read("types", vec!["0".to_owned(), "access".to_owned()], list),
        require_kind: section.read("require_type", false, boolean),
    };
    let source = match kind? {
        Kind::Secret => shared_secret(section),
        Kind::Pem => pem(section, base),
    };
    Some(ProviderSettings {
        name,
        source: source?,
        issuers: issuers?,
        rules,
    })
}

fn shared_secret(section: &Section<'_, '_>) -> Option<KeySource> {
    let secret = section.read_required("secret", |raw| text(raw).map(Secret::new));
    let key_id = section.read_optional("key_id", text);
    let chosen = section.read("algorithms", vec![Algorithm::Hs512], algorithms);
    let &[algorithm] = chosen.as_slice() else {
        section.problem(
            "algorithms",
            "must be one algorithm, since a secret has one",
        );
        return None;
    };
    if !algorithm.is_symmetric() {
        section.problem(
            "algorithms",
            "must be HS256, HS384 or HS512 where kind = \"secret\"",
        );
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
    if algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
        let message = "must not be HS256, HS384 or HS512 where kind = \"pem\": everybody may know a \
                       public key, and could sign with it";
        section.problem("algorithms", message);
    }
    Some(KeySource::Pem {
        files: files?.into_iter().map(|file| base.join(file)).collect(),
        algorithms,
    })
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
