//! How much a client may ask for of a route: looked at by its address before anybody is asked for
//! credentials, and by who it is once that is known.

use super::Session;
use super::refusal::Failure;
use crate::access::Admission;
use crate::listener::crowd::household;
use crate::quota::{Key, Place, Quota, Quotas};
use crate::route::{Protocol, Route};

/// A request that is to be counted.
pub(super) struct Countable<'a> {
    session: &'a Session,
    quota: &'a Quota,
    key: Key,
}

/// The request of an address; `None` where addresses may ask for any number.
pub(super) fn of_address<'a>(session: &'a Session, route: &Route) -> Option<Countable<'a>> {
    let quota = quotas(session, route)?.address.as_ref()?;
    Some(Countable {
        session,
        quota,
        key: address(session),
    })
}

/// The request of a client, or if nothing of that is known, of its address.
pub(super) fn of_client<'a>(
    session: &'a Session,
    route: &Route,
    admission: &Admission,
) -> Option<Countable<'a>> {
    let quota = quotas(session, route)?.client.as_ref()?;
    let key = admission.key(&session.connection);
    Some(Countable {
        session,
        quota,
        key: key.unwrap_or_else(|| address(session)),
    })
}

/// `None` for MQTT inside WebSockets, whose CONNECT is counted.
fn quotas<'a>(session: &'a Session, route: &Route) -> Option<&'a Quotas> {
    if route.protocol == Protocol::Mqtt {
        return None;
    }
    session.edge.rules.quotas.get(route.id)
}

fn address(session: &Session) -> Key {
    Key::of_address(household(session.connection.remote().ip()))
}

impl Countable<'_> {
    /// Counts it; to be kept until it has ended.
    pub(super) async fn count(self) -> Result<Option<Place>, Failure> {
        let now = self.session.edge.clock.since_epoch();
        Ok(self.quota.admit(self.key, now).await?)
    }
}
