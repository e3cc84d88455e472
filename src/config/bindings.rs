//! `[bindings.X]`: what clients present and what their certificates say, and who is bound by which.

use hyper::header::HeaderName;

use super::document::Section;
use super::value::{Raw, each, parsed, text};
use crate::access::{Binding, Mode, Rule, SecretRule};
use crate::credential::Place;
use crate::identity::Template;

/// All bindings, the standard one first: the common name is the client secret.
pub(super) struct Bindings {
    /// Their names, but for the first, which has none.
    names: Vec<String>,
    all: Vec<Binding>,
}

/// Where a binding is used, which is to say what a client can present there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A route to an HTTP upstream.
    Http,
    /// MQTT within a WebSocket, whose opening is HTTP.
    MqttInWebSocket,
    /// MQTT alone.
    Mqtt,
}

impl Bindings {
    pub(super) fn read(root: &Section<'_, '_>, mode: Mode) -> Self {
        let section = root.section("bindings");
        let mut bindings = Self {
            names: vec![],
            all: vec![Binding::default()],
        };
        for (name, section) in section.named_sections() {
            if mode == Mode::Key {
                let message = "has no meaning while auth = \"key\": no client shows a certificate";
                section.problem("secret", message);
            }
            bindings.all.push(binding(&section));
            bindings.names.push(name);
            section.finish();
        }
        section.finish();
        bindings
    }

    /// The `binding` of a route or listener, as an index.
    pub(super) fn choose(&self, section: &Section<'_, '_>, used: Use) -> usize {
        let known = |raw| {
            let name = text(raw)?;
            let index = self.names.iter().position(|known| *known == name);
            let index = index.ok_or_else(|| format!("no binding is called \"{name}\""))? + 1;
            fits(&self.all[index], used).map(|()| index)
        };
        section.read("binding", 0, known)
    }

    pub(super) fn into_all(self) -> Vec<Binding> {
        self.all
    }
}

fn binding(section: &Section<'_, '_>) -> Binding {
    let secret = section.read("secret", SecretRule::CommonName, secret_rule);
    let user_name = section.read_optional("user_name", parsed::<Template>);
    let client_id = section.read_optional("client_id", parsed::<Template>);
    let headers = section.read("headers", vec![], |raw| entries(raw, header));
    let parameters = section.read("query", vec![], |raw| entries(raw, parameter));
    let rule = |place| move |template| Rule { place, template };
    let mut rules = headers;
    rules.extend(parameters);
    rules.extend(user_name.map(rule(Place::UserName)));
    rules.extend(client_id.map(rule(Place::ClientId)));
    if rules.is_empty() && matches!(secret, SecretRule::Presented) {
        let message = "must not be \"presented\" with nothing else bound: any certificate would do \
                       for any secret";
        section.problem("secret", message);
    }
    Binding { secret, rules }
}

fn secret_rule(raw: Raw) -> Result<SecretRule, String> {
    match text(raw.clone())?.as_str() {
        "{cn}" => Ok(SecretRule::CommonName),
        "presented" => Ok(SecretRule::Presented),
        _ => parsed(raw).map(SecretRule::Made),
    }
}

/// `name: template`, each.
fn entries(raw: Raw, place: impl Fn(&str) -> Option<Place>) -> Result<Vec<Rule>, String> {
    let entry = |entry: &str| {
        let wrong = || format!("\"{entry}\" is not a name and a template, as in \"x-id: {{cn}}\"");
        let (name, template) = entry.split_once(':').ok_or_else(wrong)?;
        let place = place(name.trim()).ok_or_else(wrong)?;
        let template = template.trim();
        let template = template
            .parse()
            .map_err(|error| format!("\"{template}\": {error}"))?;
        Ok(Rule { place, template })
    };
    each(raw, entry)
}

fn header(name: &str) -> Option<Place> {
    let name: HeaderName = name.parse().ok()?;
    // What it says of the secret is for `secret` to rule.
    (name != hyper::header::AUTHORIZATION).then(|| Place::Header(name.as_str().to_owned()))
}

fn parameter(name: &str) -> Option<Place> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_plain = !name.is_empty() && name.bytes().all(plain);
    let is_credential = name.eq_ignore_ascii_case("authorization");
    (is_plain && !is_credential).then(|| Place::Query(name.to_owned()))
}

/// A rule about what cannot be presented would refuse everybody.
fn fits(binding: &Binding, used: Use) -> Result<(), String> {
    for place in binding.places() {
        match (place, used) {
            (Place::ClientId, Use::Http) => {
                return Err("binds client_id, which HTTP has not".into());
            }
            (Place::Header(_), Use::Mqtt) => {
                return Err("binds headers, which MQTT has not".into());
            }
            (Place::Query(_), Use::Mqtt) => {
                return Err("binds query parameters, which MQTT has not".into());
            }
            (Place::UserName | Place::ClientId | Place::Header(_) | Place::Query(_), _) => {}
        }
    }
    Ok(())
}
