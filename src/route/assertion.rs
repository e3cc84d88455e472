//! What an upstream is told of the gateway's decision in a signed token.

use hyper::header::HeaderName;

use super::claims::ClaimPath;

/// The token that a route's upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedAssertion {
    /// The field that carries it.
    pub field: HeaderName,
    /// For whom it is (`aud`).
    pub audience: String,
    /// What it says of the user's own token.
    pub claims: Vec<AssertedClaim>,
}

/// A claim of a user's token, under a name of the route's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertedClaim {
    /// Its name in the assertion.
    pub name: String,
    /// Where it stands in the user's token.
    pub path: ClaimPath,
}
