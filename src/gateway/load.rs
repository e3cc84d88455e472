//! What the files that the settings name are loaded to, and what is wrong with them.

use std::collections::HashSet;
use std::sync::Arc;

use super::StartError;
use super::live::Live;
use crate::assertion::Asserter;
use crate::callout::{self, Callout};
use crate::clock::Clock;
use crate::config::{ListenerSettings, Settings};
use crate::telemetry::Metrics;
use crate::tls::{Initiator, Policies};
use crate::token::{Revocations, Verifier};
use crate::upstream;

/// What the policies of every listener are made of, read from the files that the settings name.
///
/// # Errors
/// [`StartError::Tls`] for the first listener with one that is unfit.
pub(super) fn policies(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Option<Policies>>, StartError> {
    let load = |listener: &ListenerSettings| {
        let policies = listener.tls.as_ref().map(|tls| Policies::load(tls, clock));
        policies.transpose().map_err(StartError::Tls)
    };
    settings.listeners.iter().map(load).collect()
}

/// What TLS to the servers of every upstream is made of, read likewise.
///
/// # Errors
/// [`StartError::UpstreamTls`] for the first upstream with files that are unfit.
pub(super) fn initiators(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Option<Arc<Initiator>>>, StartError> {
    let upstreams = settings.upstreams.iter();
    upstreams
        .map(|upstream| initiator(upstream, clock))
        .collect()
}

fn initiator(
    upstream: &upstream::Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<Initiator>>, StartError> {
    let initiator = upstream.tls.as_ref().map(|tls| Initiator::load(tls, clock));
    let initiator = initiator
        .transpose()
        .map_err(|errors| StartError::UpstreamTls {
            upstream: upstream.name.clone(),
            errors,
        })?;
    Ok(initiator.map(Arc::new))
}

/// Everything that is wrong with the files that the settings name, each fault once.
pub fn problems(settings: &Settings, clock: &Arc<dyn Clock>) -> Vec<StartError> {
    let mut problems: Vec<StartError> = Verifier::problems(&settings.tokens, clock)
        .into_iter()
        .map(StartError::from)
        .collect();
    let metrics = Metrics::default();
    let callouts = settings.callouts.iter();
    problems.extend(callouts.filter_map(|one| callout(one, &[], &metrics).err()));
    problems.extend(asserter(settings, None).err());
    let revocations =
        Revocations::default().read(settings.tokens.revocations.as_ref(), clock.now());
    problems.extend(revocations.err().map(StartError::from));
    let mut known = HashSet::new();
    for tls in settings.listeners.iter().filter_map(|one| one.tls.as_ref()) {
        let mut errors = Policies::load(tls, clock).err().unwrap_or_default();
        // Listeners share their policies.
        errors.retain(|error| known.insert(error.to_string()));
        if !errors.is_empty() {
            problems.push(StartError::Tls(errors));
        }
    }
    let upstreams = settings.upstreams.iter();
    problems.extend(upstreams.filter_map(|one| initiator(one, clock).err()));
    problems
}

/// The call-outs, each with what it remembers if there was the same before.
pub(super) fn callouts(
    settings: &Settings,
    former: Option<&Live>,
    metrics: &Metrics,
) -> Result<Arc<[Arc<Callout>]>, StartError> {
    let former = former.map_or(&[][..], |former| former.gate.callouts());
    let callouts = settings.callouts.iter();
    callouts
        .map(|settings| callout(settings, former, metrics))
        .collect()
}

fn callout(
    settings: &callout::Settings,
    former: &[Arc<Callout>],
    metrics: &Metrics,
) -> Result<Arc<Callout>, StartError> {
    if let Some(same) = former.iter().find(|former| former.is_of(settings)) {
        return Ok(Arc::clone(same));
    }
    let callout =
        Callout::new(settings, metrics.for_callout(&settings.name)).map_err(|source| {
            StartError::Callout {
                callout: settings.name.clone(),
                source,
            }
        })?;
    Ok(Arc::new(callout))
}

/// Who signs assertions. A key that was made here outlives a reload.
pub(super) fn asserter(
    settings: &Settings,
    former: Option<&Asserter>,
) -> Result<Option<Arc<Asserter>>, StartError> {
    let load = |settings| Asserter::load(settings, former).map(Arc::new);
    Ok(settings.assertions.as_ref().map(load).transpose()?)
}
