//! The walls between the rooms: each imports only from rooms on earlier rows (ARCHITECTURE.md,
//! "Layering").

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each row may import from those before it; on a row rooms are strangers, except along arrows.
const ROWS: &[&[&str]] = &[
    &["secret", "clock", "host", "socket", "tally"],
    &["telemetry", "relay", "fetch", "quota"],
    &[
        "listener",
        "tls",
        "token",
        "callout",
        "route",
        "upstream",
        "assertion",
    ],
    &["identity"],
    &["credential"],
    &["access"],
    &["http", "websocket", "mqtt"],
    &["admin"],
    &["config"],
    &["gateway", "cli", "main"],
];

/// Imports within a row.
const ARROWS: &[(&str, &str)] = &[
    ("upstream", "tls"),
    ("http", "websocket"),
    ("http", "mqtt"),
    ("mqtt", "websocket"),
    ("cli", "gateway"),
    ("main", "cli"),
];

fn row(room: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&room))
        .unwrap_or_else(|| panic!("{room} is on no row"))
}

fn is_allowed(from: &str, to: &str) -> bool {
    from == to || row(to) < row(from) || ARROWS.contains(&(from, to))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The first part of a file's path below `src/`.
fn room_of(file: &Path) -> String {
    let below = file.strip_prefix(source()).unwrap();
    let first = below.components().next().unwrap().as_os_str();
    let first = first.to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// The rooms that a file's code names, in `use` lines and in paths alike.
fn imports(text: &str) -> BTreeSet<String> {
    // What only the documentation or a test says binds nobody.
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim_start);
    let code: Vec<&str> = lines.filter(|line| !line.starts_with("//")).collect();
    let code = code.join("\n");
    ["crate::", "portcullis::"]
        .iter()
        .flat_map(|prefix| {
            code.match_indices(prefix)
                .map(|(at, _)| &code[at + prefix.len()..])
        })
        .flat_map(heads)
        .collect()
}

/// The first name of the path that `rest` begins with, or of each path of the list in braces.
fn heads(rest: &str) -> Vec<String> {
    let Some(list) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut found = vec![name(list)];
    let mut depth = 1;
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(name(&list[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn name(path: &str) -> String {
    let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    path.trim_start().chars().take_while(is_name).collect()
}

#[test]
fn no_room_reaches_past_the_table() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    assert!(all.len() > 20, "{all:?}");
    let mut wrong = Vec::new();
    for file in all.iter().filter(|file| !file.ends_with("lib.rs")) {
        let from = room_of(file);
        for to in imports(&fs::read_to_string(file).unwrap()) {
            if !is_allowed(&from, &to) {
                wrong.push(format!("{} imports {to}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_stands_in_the_table_once() {
    let rooms: BTreeSet<String> = fs::read_dir(source())
        .unwrap()
        .map(|entry| room_of(&entry.unwrap().path()))
        .filter(|room| room != "lib")
        .collect();
    let listed: Vec<&str> = ROWS.concat();
    assert_eq!(
        rooms,
        listed.iter().map(|room| (*room).to_owned()).collect()
    );
    assert_eq!(rooms.len(), listed.len());
}

#[test]
fn imports_are_read_in_every_form() {
    let text = "//! use crate::docs;\nuse crate::tls::Policy;\nuse crate::{access::{Gate, Mode}, route,};\n\
                use crate::admin;\n    let x = crate::clock::now();\n/// [`crate::gateway`]\n\
                #[cfg(test)]\nuse crate::config;\n";
    let rooms = imports(text);
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    assert_eq!(rooms, ["access", "admin", "clock", "route", "tls"]);
}

#[test]
fn the_table_forbids_what_it_should() {
    assert!(is_allowed("http", "access") && is_allowed("http", "websocket"));
    for (from, to) in [
        ("access", "http"),
        ("websocket", "http"),
        ("tls", "listener"),
        ("http", "config"),
        ("credential", "gateway"),
    ] {
        assert!(!is_allowed(from, to), "{from} {to}");
    }
}
