//! Topic names and topic filters (MQTT 5 §4.7; the same rules hold for 3.1.1).
//! A value of either type has been checked once, here; nothing inside checks it again.
//! HTTP and WebSocket paths become topics here too, so that all adapters agree on names.

use std::fmt;

use percent_encoding::percent_decode_str;

/// The name a message is published under: no wildcard, not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Topic(String);

impl Topic {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let valid = fits_on_the_wire(name) && !has_wildcard(name);
        valid.then(|| Self(name.to_owned()))
    }

    /// `/m/{domain}/c/{channel}[/{subtopic...}]`, percent-decoded one segment at a time.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        let segments = path.strip_prefix('/')?.split('/').map(decode_segment);
        let segments = segments.collect::<Option<Vec<_>>>()?;
        let [messages, _domain, channels, _channel, ..] = segments.as_slice() else {
            return None;
        };
        if messages != "m" || channels != "c" {
            return None;
        }
        Self::parse(&segments.join("/"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// For logs: control characters are escaped, so a topic cannot forge a log line.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
    }
}

/// What a subscriber asks for: a topic in which `+` stands for one level, a last `#` for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Filter(String);

impl Filter {
    pub(crate) fn parse(filter: &str) -> Option<Self> {
        let (parents, last) = filter.rsplit_once('/').unwrap_or(("", filter));
        let parents_valid = parents
            .split('/')
            .all(|level| level == "+" || !has_wildcard(level));
        let last_valid = last == "+" || last == "#" || !has_wildcard(last);
        let valid = fits_on_the_wire(filter) && parents_valid && last_valid;
        valid.then(|| Self(filter.to_owned()))
    }

    /// The filter that matches exactly one topic.
    pub(crate) fn exactly(topic: &Topic) -> Self {
        Self(topic.0.clone())
    }

    pub(crate) fn matches(&self, topic: &Topic) -> bool {
        // MQTT-4.7.2-1: a leading wildcard does not reach `$SYS` and its like.
        if topic.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.0.split('/');
        for wanted in self.0.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

fn decode_segment(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    let valid = !decoded.is_empty() && !decoded.contains('/');
    valid.then(|| decoded.into_owned())
}

fn has_wildcard(level: &str) -> bool {
    level.contains(['+', '#'])
}

/// MQTT 5 §1.5.4 and §4.7.3: one to 65 535 bytes, no NUL.
fn fits_on_the_wire(name: &str) -> bool {
    (1..=usize::from(u16::MAX)).contains(&name.len()) && !name.contains('\0')
}
