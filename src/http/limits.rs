//! How much a client may ask for of a route: looked at by its address before anybody is asked for
//! credentials, and by who it is once that is known.

use super::Session;
use crate::access::Admission;
use crate::listener::crowd::household;
use crate::quota::{Key, Overrun, Place, Quota};
use crate::route::Route;

/// A request that is to be counted.
pub(super) struct Countable<'a> {
    session: &'a Session,
    quota: &'a Quota,
    key: Key,
}

/// The request of an address; `None` where addresses may ask for any number.
pub(super) fn of_address<'a>(session: &'a Session, route: &Route) -> Option<Countable<'a>> {
    let quotas = session.edge.rules.quotas.get(route.id)?;
    let quota = quotas.address.as_ref()?;
    Some(Countable {
        session,
        quota,
        key: address(session),
    })
}

/// The request of a client, or if nothing of that is known, of its address. In MQTT inside a WebSocket it is
/// the CONNECT that is the client's.
pub(super) fn of_client<'a>(
    session: &'a Session,
    route: &Route,
    admission: &Admission,
) -> Option<Countable<'a>> {
    let quotas = session.edge.rules.quotas.get(route.id)?;
    let quota = quotas.client.as_ref()?;
    let key = admission.key(&session.connection);
    Some(Countable {
        session,
        quota,
        key: key.unwrap_or_else(|| address(session)),
    })
}

fn address(session: &Session) -> Key {
    Key::of_address(household(session.connection.remote().ip()))
}

impl Countable<'_> {
    /// Counts it; to be kept until it has ended.
    pub(super) async fn count(self) -> Result<Option<Place>, Overrun> {
        let now = self.session.edge.clock.since_epoch();
        self.quota.admit(self.key, now).await
    }
}
