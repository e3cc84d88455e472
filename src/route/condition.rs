//! What a route asks of a request beside its host and path. Clients say what they like in methods and
//! fields: conditions choose between routes and protect none of them.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

/// Everything that must hold of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Its method must be one of these; none means any.
    pub methods: Vec<Method>,
    /// Its fields.
    pub headers: Vec<HeaderCondition>,
}

/// A condition on the fields of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// The name.
    pub name: HeaderName,
    /// What one of them must be, exactly; `None` if it is enough that there is one.
    pub value: Option<HeaderValue>,
}

impl Conditions {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len()
    }

    pub(super) fn allow(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    pub(super) fn hold_for(&self, headers: &HeaderMap) -> bool {
        self.headers
            .iter()
            .all(|condition| condition.holds(headers))
    }
}

impl HeaderCondition {
    fn holds(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.name),
            Some(wanted) => headers.get_all(&self.name).iter().any(|it| it == wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: &'static str, value: Option<&'static str>) -> HeaderCondition {
        HeaderCondition {
            name: HeaderName::from_static(name),
            value: value.map(HeaderValue::from_static),
        }
    }

    #[test]
    fn fields_are_compared_exactly() {
        let mut headers = HeaderMap::new();
        headers.append("x-version", HeaderValue::from_static("1"));
        headers.append("x-version", HeaderValue::from_static("2"));
        for (condition, holds) in [
            (condition("x-version", None), true),
            (condition("x-version", Some("1")), true),
            (condition("x-version", Some("2")), true),
            (condition("x-version", Some("1, 2")), false),
            (condition("x-version", Some("")), false),
            (condition("x-versions", None), false),
        ] {
            assert_eq!(condition.holds(&headers), holds, "{condition:?}");
        }
    }
}
