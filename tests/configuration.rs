//! `config.toml` is the manual: it holds every key there is, with its default, and nothing else.

use std::path::Path;

use portcullis::config::{self, Environment, Settings};
use tempfile::TempDir;
use toml::{Table, Value};

fn shipped() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap()
}

/// What a configuration cannot do without, and where the shipped one is no default by intent.
const NEEDED: &str = r#"
    [listeners.edge]
    address = "0.0.0.0:8443"
    [listeners.mqtts]
    address = "0.0.0.0:8883"
    protocol = "mqtts"
    upstream = "mqtt"
    [upstreams.mqtt]
    servers = ["127.0.0.1:1883"]
    [routes.mqtt]
    path = "/mqtt"
    protocol = "mqtt"
    upstream = "mqtt"
    [upstreams.http]
    servers = ["127.0.0.1:8008"]
    [upstreams.ws]
    servers = ["127.0.0.1:8186"]
    [routes.http]
    path = "/http/"
    upstream = "http"
    strip_prefix = true
    [routes.ws]
    path = "/ws/"
    upstream = "ws"
    strip_prefix = true
"#;

/// Loads texts from one folder, so that relative paths come out alike.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn load(&self, text: &str, variables: &[(String, String)]) -> Result<Settings, String> {
        let path = self.0.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let environment: Environment = variables.iter().cloned().collect();
        config::load(&path, &environment).map_err(|error| error.to_string())
    }

    /// What is wrong with it.
    fn problems(&self, text: &str) -> String {
        self.load(text, &[]).map(drop).unwrap_err()
    }

    fn shown(&self, text: &str, variables: &[(String, String)]) -> String {
        format!("{:#?}", self.load(text, variables).unwrap())
    }
}

/// Keys of the manual that are left out are examples in comments.
fn uncommented(text: &str) -> String {
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if is_toml(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

fn is_toml(line: &str) -> bool {
    let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| is_key(key))
}

/// Every key with its full path.
fn keys(table: &Table, path: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let key = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        match value {
            Value::Table(table) => found.extend(keys(table, &key)),
            _ => found.push((key, value.clone())),
        }
    }
    found
}

/// A value as a variable gives it.
fn as_variable(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(as_variable).collect();
            items.join(",")
        }
        other => other.to_string(),
    }
}

#[test]
fn what_the_manual_sets_are_the_defaults() {
    let desk = Desk::new();
    assert_eq!(desk.shown(&shipped(), &[]), desk.shown(NEEDED, &[]));
}

#[test]
fn the_examples_of_the_manual_are_valid() {
    let desk = Desk::new();
    let text = uncommented(&shipped());
    assert_ne!(text, shipped());
    let settings = desk.load(&text, &[]).unwrap();
    assert_eq!(
        settings.listeners[0].tls.as_ref().unwrap().policies.len(),
        2
    );
}

/// The names that the code reads, told by the calls that read them.
fn names_in_the_code() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let code: String = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let calls = [
        "read(",
        "read_required(",
        "read_optional(",
        "bytes(",
        "path(",
        "section,",
        "section(",
    ];
    let name_after = |call: &str| -> Vec<String> {
        code.match_indices(call)
            .filter_map(|(at, _)| code[at + call.len()..].trim_start().strip_prefix('"'))
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect()
    };
    calls.into_iter().flat_map(name_after).collect()
}

#[test]
fn every_key_that_is_read_is_in_the_manual() {
    let text = uncommented(&shipped());
    let table: Table = text.parse().unwrap();
    let documented: Vec<String> = keys(&table, "")
        .iter()
        .flat_map(|(key, _)| key.split('.').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let names = names_in_the_code();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(documented.contains(&name), "{name} is not in config.toml");
    }
}

#[test]
fn a_comment_stands_above_every_key() {
    let text = shipped();
    let lines: Vec<&str> = text.lines().collect();
    // Explained with the line before them, or by the first table of their kind.
    let beside = [
        "key",
        "path",
        "upstream",
        "servers",
        "strip_prefix",
        "address",
        "format",
    ];
    for (at, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|_| is_toml(line)) else {
            continue;
        };
        let mut above = lines[..at].iter().rev();
        let explained = above
            .by_ref()
            .take_while(|line| !line.is_empty())
            .any(|line| line.starts_with('#'));
        assert!(explained || beside.contains(&key), "line {}: {key}", at + 1);
    }
}

#[test]
fn every_key_of_the_manual_can_be_set_by_a_variable() {
    let desk = Desk::new();
    let text = uncommented(&shipped());
    let expected = desk.shown(&text, &[]);
    for (key, value) in keys(&text.parse().unwrap(), "") {
        let name = key.replace('.', "_").to_uppercase();
        let variable = |value: String| (format!("PORTCULLIS_{name}"), value);
        let same = [variable(as_variable(&value))];
        // Lists that are empty in the file are empty in a variable too.
        assert_eq!(desk.shown(&text, &same), expected, "{key}");

        let file = desk.0.path().join("value");
        std::fs::write(&file, as_variable(&value) + "\n").unwrap();
        let by_file = (
            format!("PORTCULLIS_{name}_FILE"),
            file.to_str().unwrap().to_owned(),
        );
        assert_eq!(desk.shown(&text, &[by_file]), expected, "{key}");
    }
}

#[test]
fn a_variable_goes_before_the_file() {
    let desk = Desk::new();
    let set = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    let shown = |variables: &[(String, String)]| desk.load(&shipped(), variables).unwrap();
    assert_eq!(shown(&set("PORTCULLIS_WORKERS", "7")).workers, 7);
    assert_eq!(
        shown(&set("PORTCULLIS_LIMITS_STREAMS", "9")).limits.streams,
        9
    );
    assert!(
        shown(&set("PORTCULLIS_ADMIN_ENABLED", "false"))
            .admin
            .is_none()
    );
    let problem = desk
        .load(&shipped(), &set("PORTCULLIS_LIMITS_STREAMS", "0"))
        .unwrap_err();
    assert!(problem.contains("PORTCULLIS_LIMITS_STREAMS"), "{problem}");
}

#[test]
fn every_mistake_in_a_key_is_noticed() {
    let desk = Desk::new();
    let text = uncommented(&shipped());
    let table: Table = text.parse().unwrap();
    for (key, _) in keys(&table, "") {
        let name = key.rsplit('.').next().unwrap();
        let line = |line: &&str| line.starts_with(&format!("{name} = "));
        let found = text.lines().find(line).unwrap();
        let wrong = text.replacen(&format!("\n{found}"), &format!("\n{name}x = 1\n{found}"), 1);
        let problems = desk.load(&wrong, &[]).unwrap_err();
        assert!(
            problems.contains(&format!("did you mean {name}?")),
            "{problems}"
        );
    }
}

#[test]
fn a_missing_key_is_named_with_the_line_of_its_table() {
    let desk = Desk::new();
    let text = "[upstreams.here]\n\n[upstreams.there]\nservers = []\n\n[upstreams.there.tls]\n";
    let problems = desk.problems(text);
    for expected in [
        "config.toml:1: upstreams.here.servers: is missing",
        "config.toml:6: upstreams.there.tls.ca: must name the servers' authorities",
        // No table is around it.
        "config.toml: listeners: no listener is configured",
    ] {
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn what_is_wrong_with_a_listener_is_one_mistake() {
    let desk = Desk::new();
    let route = "path = \"/named/\"\nupstream = \"b\"\nlisteners = [\"edge\"]";
    for listener in [
        "address = \"8443\"",
        "address = \"0.0.0.0:8443\"\nprotocol = \"mqtts\"",
    ] {
        let problems = desk.problems(&format!(
            "[listeners.edge]\n{listener}\n[upstreams.b]\nservers = [\"a:1883\"]\n[routes.named]\n{route}\n"
        ));
        assert!(problems.contains(": listeners.edge."), "{problems}");
        let about_listeners = problems.lines().filter(|line| line.contains("listener"));
        assert_eq!(about_listeners.count(), 1, "{problems}");
    }
}

#[test]
fn a_route_of_a_listener_that_has_none_is_a_mistake() {
    let desk = Desk::new();
    let lines = "[upstreams.b]\nservers = [\"a:1883\"]\n[listeners.devices]\n\
                 address = \"127.0.0.1:8884\"\nprotocol = \"mqtts\"\nupstream = \"b\"\n\
                 [routes.lost]\npath = \"/lost/\"\nupstream = \"b\"\nlisteners = [\"devices\"]\n";
    let problems = desk.problems(&with(lines));
    let expected = "routes.lost.listeners: \"devices\" speaks MQTT alone, and has no routes";
    assert!(problems.contains(expected), "{problems}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

#[test]
fn a_demand_for_certificates_by_key_is_one_mistake() {
    let desk = Desk::new();
    let policy = "[tls.policies.other]\nserver_names = [\"a.test\"]\n";
    let demand = "client_auth = \"required\"\n";
    let listener = "[listeners.other]\naddress = \"127.0.0.1:8444\"\n";
    for (tables, key) in [
        (format!("[tls]\n{demand}{policy}"), "tls"),
        (format!("{policy}{demand}"), "tls.policies.other"),
        (format!("{policy}{listener}{demand}"), "listeners.other"),
    ] {
        let problems = desk.problems(&format!("auth = \"key\"\n{}", with(&tables)));
        let expected = format!("{key}.client_auth: must be \"off\"");
        assert!(problems.contains(&expected), "{problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}

#[test]
fn a_head_has_room_for_a_request() {
    let desk = Desk::new();
    let limit = |size: &str| with(&format!("[limits]\nheader_bytes = \"{size}\"\n"));
    let problems = desk.problems(&limit("1023B"));
    assert!(problems.contains("limits.header_bytes: must be at least 1024B"));
    desk.load(&limit("1KiB"), &[]).unwrap();
}

#[test]
fn a_server_reference_is_text_that_mqtt_carries() {
    let desk = Desk::new();
    let mqtt = |text: &str| with(&format!("[mqtt]\nserver_reference = \"{text}\"\n"));
    let too_long = "a".repeat(65_536);
    for (text, expected) in [
        ("a\\u0001b", "\"a\\u{1}b\" has a character"),
        ("a\\u0000b", "\"a\\0b\" has a character"),
        (too_long.as_str(), "must not be longer than 65535 bytes"),
    ] {
        let problems = desk.problems(&mqtt(text));
        let expected = format!("config.toml:9: mqtt.server_reference: {expected}");
        assert!(problems.contains(&expected), "{problems}");
    }
    for text in ["example.com:8883", "größe.example", &"a".repeat(65_535)] {
        desk.load(&mqtt(text), &[]).unwrap();
    }
}

/// The smallest configuration with these tables besides.
fn with(tables: &str) -> String {
    format!(
        "[listeners.edge]\naddress = \"127.0.0.1:8443\"\n[upstreams.http]\nservers = [\"a:1\"]\n\
         [routes.http]\npath = \"/\"\nupstream = \"http\"\n{tables}"
    )
}

#[test]
fn an_address_of_two_listeners_is_a_mistake_that_names_both() {
    let desk = Desk::new();
    for (tables, expected) in [
        (
            "[listeners.inner]\naddress = \"0.0.0.0:8443\"",
            "config.toml:9: listeners.inner.address: 0.0.0.0:8443 is taken by \
             listeners.edge.address, 127.0.0.1:8443",
        ),
        (
            "[admin]\naddress = \"127.0.0.1:8443\"",
            "config.toml:9: admin.address: 127.0.0.1:8443 is taken by listeners.edge.address",
        ),
        (
            "[listeners.inner]\naddress = \"127.0.0.1:9900\"",
            "config.toml: admin.address: 127.0.0.1:9900 is taken by listeners.inner.address",
        ),
    ] {
        let problems = desk.problems(&with(tables));
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn addresses_that_are_chosen_at_the_start_or_never_listened_on_are_nobodys() {
    let desk = Desk::new();
    for tables in [
        "[listeners.one]\naddress = \"127.0.0.1:0\"\n[listeners.two]\naddress = \"127.0.0.1:0\"",
        "[listeners.one]\naddress = \"127.0.0.2:8443\"",
        "[admin]\nenabled = false\naddress = \"127.0.0.1:8443\"",
    ] {
        desk.load(&with(tables), &[]).unwrap();
    }
}
