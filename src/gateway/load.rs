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
use crate::tls::{self, Initiator, Policies};
use crate::token::{Revocations, Verifier};
use crate::upstream;

/// What the policies of every listener are made of, read from the files that the settings name.
///
/// # Errors
/// [`StartError::Tls`] for the first that is unfit.
pub(super) fn policies(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Option<Policies>>, StartError> {
    let load = |listener: &ListenerSettings| {
        let policies = listener.tls.as_ref().map(|tls| Policies::load(tls, clock));
        policies.transpose().map_err(|source| StartError::Tls {
            listener: listener.name.clone(),
            source: Box::new(source),
        })
    };
    settings.listeners.iter().map(load).collect()
}

/// What TLS to the servers of every upstream is made of, read likewise.
///
/// # Errors
/// [`StartError::UpstreamTls`] for the first that is unfit.
pub(super) fn initiators(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Option<Arc<Initiator>>>, StartError> {
    let load = |upstream: &Arc<upstream::Settings>| {
        let initiator = upstream.tls.as_ref().map(|tls| Initiator::load(tls, clock));
        let initiator = initiator
            .transpose()
            .map_err(|source| StartError::UpstreamTls {
                upstream: upstream.name.clone(),
                source: Box::new(source),
            })?;
        Ok(initiator.map(Arc::new))
    };
    settings.upstreams.iter().map(load).collect()
}

/// Everything that is wrong with the files that the settings name, each fault once.
pub fn problems(settings: &Settings, clock: &Arc<dyn Clock>) -> Vec<StartError> {
    let mut known = HashSet::new();
    let mut problems: Vec<StartError> = Verifier::problems(&settings.tokens, clock)
        .into_iter()
        .map(StartError::from)
        .collect();
    problems.extend(callouts(settings, None, &Metrics::default()).err());
    problems.extend(asserter(settings, None).err());
    let revocations =
        Revocations::default().read(settings.tokens.revocations.as_ref(), clock.now());
    problems.extend(revocations.err().map(StartError::from));
    for listener in &settings.listeners {
        for tls in listener.tls.iter().flat_map(tls::Settings::each) {
            if let Err(source) = Policies::load(&tls, clock)
                && known.insert(source.to_string())
            {
                let listener = listener.name.clone();
                problems.push(StartError::Tls {
                    listener,
                    source: Box::new(source),
                });
            }
        }
    }
    for upstream in &settings.upstreams {
        if let Some(Err(source)) = upstream.tls.as_ref().map(|tls| Initiator::load(tls, clock)) {
            problems.push(StartError::UpstreamTls {
                upstream: upstream.name.clone(),
                source: Box::new(source),
            });
        }
    }
    problems
}

/// The call-outs, each with what it remembers if there was the same before.
pub(super) fn callouts(
    settings: &Settings,
    former: Option<&Live>,
    metrics: &Metrics,
) -> Result<Arc<[Arc<Callout>]>, StartError> {
    let former = former.map_or(&[][..], |former| former.gate.callouts());
    let load = |settings: &callout::Settings| {
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
    };
    settings.callouts.iter().map(load).collect()
}

/// Who signs assertions. A key that was made here outlives a reload.
pub(super) fn asserter(
    settings: &Settings,
    former: Option<&Asserter>,
) -> Result<Option<Arc<Asserter>>, StartError> {
    let load = |settings| Asserter::load(settings, former).map(Arc::new);
    Ok(settings.assertions.as_ref().map(load).transpose()?)
}
