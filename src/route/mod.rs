//! Where a request goes, and what it takes to get there.
//!
//! The most specific route wins: an exact host before a wildcard before any host; then the path that
//! says more, segment by segment from the left; then the most conditions. Paths are compared after
//! [`normalise`], and the upstream gets that same form.

mod assertion;
mod claims;
mod condition;
mod cors;
mod demand;
mod destination;
mod dialect;
mod field_rules;
mod field_template;
mod path;
mod path_match;
mod pattern;
mod rewrite;
mod table;
mod template;
mod web_origin;

use std::borrow::Cow;
use std::time::Duration;

pub use assertion::{AssertedClaim, ForwardedAssertion};
pub use claims::{ClaimPath, ClaimRule, ClaimTest, ForwardedClaim};
pub use condition::{Conditions, HeaderCondition};
pub use cors::{Cors, Leave, OriginPattern};
pub use demand::{Consulted, Demand, Demands, Entry, ListenerDemand};
pub use destination::{Destination, FixedAnswer, Location, LocationError, Redirect};
pub use dialect::CertificateDialect;
pub use field_rules::{FieldAction, FieldChange, FieldRule, FieldRules};
pub use field_template::{CertificateField, Facts, FieldTemplate, FieldTemplateError, Scope};
pub use path::{PathError, normalise};
pub use path_match::PathMatch;
pub use pattern::{Pattern, PatternError};
pub use rewrite::{Rewrite, RewriteError};
pub use table::{NotFound, RouteTable, Sought};
pub use template::{Target, TemplateError};
pub use web_origin::{WebOrigin, WebOriginError};

use crate::host::HostPattern;
use crate::quota;

/// What a route demands of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A known client: by certificate or by client secret, as `auth` says.
    Client,
    /// A user: by a bearer token.
    User,
    /// A user, if there is a bearer token, or else a client.
    Any,
    /// A client, and a user as well.
    Both,
    /// Nothing; what the client presents passes through untouched.
    None,
}

impl Requirement {
    /// Whether a bearer token is demanded, or taken where there is one.
    #[must_use]
    pub fn takes_tokens(self) -> bool {
        match self {
            Self::User | Self::Any | Self::Both => true,
            Self::Client | Self::None => false,
        }
    }
}

/// What stands behind a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, and WebSockets as they are.
    Http,
    /// MQTT inside a WebSocket (MQTT 5.0 §6), which the gateway takes out of it: the upstream is a
    /// broker's TCP port.
    Mqtt,
}

/// One route as configured, and as it serves.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its place in the list of all routes.
    pub id: usize,
    /// Its name in the configuration, the logs and the metrics.
    pub name: String,
    /// The listeners that it is for; none means all.
    pub listeners: Vec<String>,
    /// The hosts that it is for; none means any.
    pub hosts: Vec<HostPattern>,
    /// The paths that it is for.
    pub path: PathMatch,
    /// What else it asks of requests.
    pub conditions: Conditions,
    /// What its upstream speaks.
    pub protocol: Protocol,
    /// Whether the upstream sees the path without the prefix.
    pub strip_prefix: bool,
    /// What the upstream sees in place of the path.
    pub rewrite: Option<Rewrite>,
    /// What a client must be.
    pub requirement: Requirement,
    /// How what it presents is bound to its certificate, an index into the list of bindings.
    pub binding: usize,
    /// Who else is asked about it, an index into the list of call-outs; nobody if absent.
    pub callout: Option<usize>,
    /// What a user's token must say.
    pub claims: Vec<ClaimRule>,
    /// What upstream is told of it.
    pub forward_claims: Vec<ForwardedClaim>,
    /// In which words upstream is told of the client's certificate.
    pub forward_certificate: Vec<CertificateDialect>,
    /// The signed token by which upstream is told who the client is.
    pub forward_assertion: Option<ForwardedAssertion>,
    /// What is changed in the fields of requests on their way to the upstream.
    pub request_fields: FieldRules,
    /// What is changed in the fields of all answers.
    pub answer_fields: FieldRules,
    /// Which pages of other origins may read its answers; `None` leaves it to the upstream.
    pub cors: Option<Box<Cors>>,
    /// Where it leads.
    pub destination: Destination,
    /// The pages that may open WebSockets; none means any. Who is no browser names no page.
    pub origins: Vec<WebOrigin>,
    /// How much each client may ask for.
    pub quotas: quota::Settings,
    /// Most bytes in a request's body.
    pub max_body: u64,
    /// How long the upstream may take until its response begins.
    pub response_timeout: Duration,
    /// How long a request may take up to the last byte of its answer; `None` for any time.
    pub total_timeout: Option<Duration>,
    /// How long a WebSocket may stay silent in both directions.
    pub idle_timeout: Duration,
    /// Whether the `authorization` query parameter stays in the forwarded URI.
    pub keep_query_credential: bool,
    /// Whether clients are told early what an answer will need (103).
    pub early_hints: bool,
}

impl Route {
    /// Where its clients come in.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry::Route(&self.name)
    }

    /// What it demands.
    #[must_use]
    pub fn demand(&self) -> Demand<'_> {
        Demand {
            requirement: self.requirement,
            claims: &self.claims,
            binding: self.binding,
            callout: self.callout,
        }
    }

    /// The upstream, as an index into the list of upstreams; `None` if the gateway itself answers.
    #[must_use]
    pub fn upstream(&self) -> Option<usize> {
        match self.destination {
            Destination::Upstream(index) => Some(index),
            Destination::Redirect(_) | Destination::Answer(_) | Destination::KeySet => None,
        }
    }

    /// The path that the upstream sees for that of `target`, which this route has matched.
    ///
    /// # Errors
    /// [`PathError`] if the request's parts make no path.
    pub fn upstream_path<'a>(&self, target: &Target<'a>) -> Result<Cow<'a, str>, PathError> {
        match &self.rewrite {
            Some(rewrite) => rewrite.of(target).map(Cow::Owned),
            None if self.strip_prefix => Ok(self.path.stripped(target.path).into()),
            None => Ok(target.path.into()),
        }
    }
}
