//! What a reload replaces, and what of the former it keeps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::HeaderName;

use crate::access::{Gate, InForce};
use crate::assertion::Asserter;
use crate::callout;
use crate::config::{ListenerSettings, Settings};
use crate::http::Rules;
use crate::mqtt;
use crate::quota::Quotas;
use crate::route::{Consulted, Demands, Route, RouteTable};
use crate::telemetry::Metrics;
use crate::tls::Initiator;
use crate::upstream::{self, Group};

/// What a reload replaces.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) settings: Settings,
    pub(super) gate: Gate,
    /// In the order of the listeners.
    pub(super) rules: Vec<Arc<Rules>>,
    /// TLS to servers, in the order of the upstreams.
    pub(super) initiators: Vec<Option<Arc<Initiator>>>,
    /// The upstreams as all workers know them, in the same order.
    pub(super) groups: Vec<Arc<Group>>,
    pub(super) quotas: AllQuotas,
}

/// How much each client may ask for.
#[derive(Debug)]
pub(super) struct AllQuotas {
    /// In the order of the routes.
    routes: Arc<[Quotas]>,
    /// By their names.
    listeners: HashMap<String, Quotas>,
}

impl Live {
    pub(super) fn new(
        settings: Settings,
        gate: Gate,
        asserter: Option<Arc<Asserter>>,
        initiators: Vec<Option<Arc<Initiator>>>,
        groups: Vec<Arc<Group>>,
        quotas: AllQuotas,
        addresses: &[(String, SocketAddr)],
    ) -> Self {
        let rules = addresses
            .iter()
            .zip(&settings.listeners)
            .map(|((name, address), listener)| {
                Arc::new(Rules {
                    listener: name.clone(),
                    port: address.port(),
                    gate: gate.clone(),
                    asserter: asserter.clone(),
                    routes: RouteTable::for_listener(&settings.routes, name),
                    token_places: settings.token_places.clone(),
                    claim_fields: claim_fields(&settings),
                    answer_fields: settings.answer_fields.clone(),
                    hsts: settings.hsts.clone().filter(|_| listener.tls.is_some()),
                    quotas: Arc::clone(&quotas.routes),
                    limits: settings.limits,
                })
            })
            .collect();
        Self {
            groups,
            quotas,
            settings,
            gate,
            rules,
            initiators,
        }
    }
}

impl AllQuotas {
    /// Those of `settings`, with what has been asked for of those of the same name and allowance.
    pub(super) fn new(settings: &Settings, former: Option<&Live>, metrics: &Metrics) -> Self {
        let route = |route: &Arc<Route>| {
            let former = former.and_then(|former| {
                let mut known = former.settings.routes.iter();
                let place = known.position(|known| known.name == route.name)?;
                former.quotas.routes.get(place)
            });
            Quotas::new(&route.quotas, former, || metrics.limited(&route.name))
        };
        let listener = |listener: &ListenerSettings| {
            let former = former.and_then(|former| former.quotas.listeners.get(&listener.name));
            let name = format!("listeners.{}", listener.name);
            let quotas = Quotas::new(&listener.quotas, former, || metrics.limited(&name));
            (listener.name.clone(), quotas)
        };
        Self {
            routes: settings.routes.iter().map(route).collect(),
            listeners: settings.listeners.iter().map(listener).collect(),
        }
    }

    pub(super) fn of_listener(&self, name: &str) -> Quotas {
        self.listeners.get(name).cloned().unwrap_or_default()
    }
}

/// What those are asked who stay.
pub(super) fn in_force(settings: &Settings) -> InForce {
    InForce {
        mode: settings.mode,
        bindings: Arc::clone(&settings.bindings),
        demands: demands(settings),
    }
}

/// How MQTT sessions end when the gateway drains.
pub(super) fn drain(settings: &Settings) -> mqtt::Drain {
    mqtt::Drain {
        timeout: settings.drain_timeout,
        server_reference: settings.mqtt.server_reference.clone(),
    }
}

/// What every entry demands; listeners with routes have no clients but theirs.
fn demands(settings: &Settings) -> Demands {
    let listeners = settings.listeners.iter();
    let listeners = listeners.map(ListenerSettings::demand);
    let callouts = settings.callouts.iter();
    let callouts = callouts.map(|callout| Consulted {
        callout: callout.name.clone(),
        is_about_clients: callout.is_about_clients(),
    });
    Demands::new(
        settings.routes.clone(),
        listeners.collect(),
        callouts.collect(),
    )
}

/// The upstreams that `settings` name, with what is known already of their servers.
pub(super) fn groups(
    settings: &Settings,
    former: &[Arc<Group>],
    metrics: &Arc<Metrics>,
) -> Vec<Arc<Group>> {
    let group = |settings: &Arc<upstream::Settings>| {
        let former = of_name(&settings.name, former);
        Arc::new(Group::new(Arc::clone(settings), former, metrics))
    };
    settings.upstreams.iter().map(group).collect()
}

pub(super) fn of_name<'a>(name: &str, groups: &'a [Arc<Group>]) -> Option<&'a Group> {
    let mut groups = groups.iter().map(|group| &**group);
    groups.find(|group| group.name() == name)
}

/// Every field in which any route tells of its clients or something of a certificate, or any call-out's
/// answers are told: no client may say them, whatever its route.
fn claim_fields(settings: &Settings) -> Vec<HeaderName> {
    let claims = settings.routes.iter().flat_map(|route| {
        let claims = route.forward_claims.iter().map(|claim| &claim.field);
        claims.chain(route.forward_assertion.iter().map(|told| &told.field))
    });
    let callouts = settings.callouts.iter();
    let granted = callouts.flat_map(callout::Settings::upstream_fields);
    let rules = settings.routes.iter();
    let rules = rules.flat_map(|route| route.request_fields.iter());
    let proven = rules.filter(|rule| rule.certificate_fields().next().is_some());
    let proven = proven.map(|rule| &rule.name);
    claims.chain(granted).chain(proven).cloned().collect()
}
