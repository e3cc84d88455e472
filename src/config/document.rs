//! Keys with their places: a table of the file and the environment seen as one.
//!
//! Whoever reads a key by [`Section::read`] thereby declares that it exists. What nobody has
//! declared is unknown, whether it stands in the file or in a variable, and the declared names are
//! what suggestions are made of. So a key needs one line of code to have a default, an environment
//! override and an error message with its line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Raw;

/// Variables that override keys begin so.
const PREFIX: &str = "PORTCULLIS_";

/// The variables of a process, as far as they concern the configuration.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        // A variable that is not Unicode cannot be one of ours.
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = |name: &str| name == "AUTH" || name.starts_with(PREFIX);
        Self(
            variables
                .into_iter()
                .filter(|(name, _)| ours(name))
                .collect(),
        )
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `config.toml:12`, or the name of a variable.
    pub place: String,
    /// The key's full path.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            key,
            message,
        } = self;
        if key.is_empty() {
            write!(f, "{place}: {message}")
        } else {
            write!(f, "{place}: {key}: {message}")
        }
    }
}

/// The file, the environment, and what has been found wrong with them.
pub(super) struct Document<'a> {
    name: &'a str,
    text: &'a str,
    environment: &'a Environment,
    problems: RefCell<Vec<Problem>>,
    declared_variables: RefCell<Vec<String>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(name: &'a str, text: &'a str, environment: &'a Environment) -> Self {
        Self {
            name,
            text,
            environment,
            problems: RefCell::default(),
            declared_variables: RefCell::default(),
        }
    }

    /// Parses the file; what is not TOML is a problem of its own.
    pub(super) fn parse(&self) -> DeTable<'a> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let place = self.place(error.span().map(|span| span.start));
            self.problem(place, String::new(), error.message().to_owned());
        }
        table.into_inner()
    }

    /// The whole file as a section.
    pub(super) fn root<'s>(&'s self, table: &'s DeTable<'a>) -> Section<'s, 'a> {
        Section {
            document: self,
            path: String::new(),
            table: Some(table),
            start: None,
            declared: RefCell::default(),
        }
    }

    fn place(&self, offset: Option<usize>) -> String {
        match offset.and_then(|offset| self.text.get(..offset)) {
            Some(before) => format!("{}:{}", self.name, before.matches('\n').count() + 1),
            None => self.name.to_owned(),
        }
    }

    fn problem(&self, place: String, key: String, message: String) {
        self.problems.borrow_mut().push(Problem {
            place,
            key,
            message,
        });
    }

    /// All problems, after every section has been read: variables that no key has asked for are
    /// among them.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let declared = self.declared_variables.into_inner();
        let mut problems = self.problems.into_inner();
        for name in self.environment.0.keys() {
            let stem = name.strip_suffix("_FILE").unwrap_or(name);
            if !declared.iter().any(|known| known == name || known == stem) {
                problems.push(Problem {
                    place: format!("environment variable {name}"),
                    key: String::new(),
                    message: format!("overrides no key{}", suggestion(name, &declared)),
                });
            }
        }
        problems
    }
}

/// One table of the file, or its absence.
pub(super) struct Section<'s, 'a> {
    document: &'s Document<'a>,
    path: String,
    table: Option<&'s DeTable<'a>>,
    /// Where the table begins, or the next one around it that is there.
    start: Option<usize>,
    declared: RefCell<Vec<String>>,
}

/// A value and where it came from.
struct Found {
    raw: Raw,
    place: String,
}

impl<'s, 'a> Section<'s, 'a> {
    /// The key's full path.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Reads a key by `parse`; `default` stands in where it is absent or wrong.
    pub(super) fn read<T>(
        &self,
        name: &str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> T {
        self.read_optional(name, parse).unwrap_or(default)
    }

    /// Reads a key that may be absent.
    pub(super) fn read_optional<T>(
        &self,
        name: &str,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.find(name)?;
        match parse(found.raw) {
            Ok(value) => Some(value),
            Err(message) => {
                self.document.problem(found.place, self.key(name), message);
                None
            }
        }
    }

    /// Reads a key that must be there.
    pub(super) fn read_required<T>(
        &self,
        name: &str,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> Option<T> {
        if self.find(name).is_none() {
            self.problem(name, "is missing");
        }
        self.read_optional(name, parse)
    }

    /// Whether the key is set at all, to whatever.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some() || self.find_variable(&self.key(name)).is_some()
    }

    /// Whether the file has this table.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// A table within this one.
    pub(super) fn section(&self, name: &str) -> Section<'s, 'a> {
        self.declare(name);
        let table = match self.entry(name) {
            None => None,
            Some(value) => {
                let table = value.get_ref().as_table();
                if table.is_none() {
                    self.problem(name, "must be a table");
                }
                table
            }
        };
        Section {
            document: self.document,
            path: self.key(name),
            table,
            start: self.span(name).or(self.start),
            declared: RefCell::default(),
        }
    }

    /// The tables within this one, by the operator's own names for them.
    pub(super) fn named_sections(&self) -> Vec<(String, Section<'s, 'a>)> {
        let names: Vec<String> = self
            .table
            .into_iter()
            .flatten()
            .map(|(name, _)| name.get_ref().to_string())
            .collect();
        for name in &names {
            if !name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            {
                self.problem(
                    name,
                    "names consist of lowercase letters, digits and underscores",
                );
            }
        }
        names
            .into_iter()
            .map(|name| (name.clone(), self.section(&name)))
            .collect()
    }

    /// Notes that `name` is wrong for a reason that reading it alone did not show.
    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        let place = self.find_variable(&self.key(name)).map_or_else(
            || self.document.place(self.span(name).or(self.start)),
            |(variable, _)| format!("environment variable {variable}"),
        );
        self.document.problem(place, self.key(name), message.into());
    }

    /// Ends the reading: what has not been declared by now is unknown.
    pub(super) fn finish(self) {
        let declared = self.declared.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref();
            if !declared.iter().any(|known| known == name) {
                let place = self.document.place(Some(key.span().start));
                let message = format!("unknown key{}", suggestion(name, &declared));
                self.document.problem(place, self.key(name), message);
            }
        }
    }

    fn declare(&self, name: &str) {
        self.declared.borrow_mut().push(name.to_owned());
    }

    fn entry(&self, name: &str) -> Option<&'s Spanned<DeValue<'a>>> {
        self.table?.get(name)
    }

    fn span(&self, name: &str) -> Option<usize> {
        let (key, _) = self.table?.get_key_value(name)?;
        Some(key.span().start)
    }

    /// The value of a key: a variable goes before the file.
    fn find(&self, name: &str) -> Option<Found> {
        self.declare(name);
        let key = self.key(name);
        if let Some((variable, value)) = self.find_variable(&key) {
            return self.read_variable(&key, variable, value);
        }
        let value = self.entry(name)?;
        let place = self.document.place(self.span(name));
        match Raw::from_file(value.get_ref()) {
            Ok(raw) => Some(Found { raw, place }),
            Err(message) => {
                self.document.problem(place, key, message);
                None
            }
        }
    }

    fn find_variable(&self, key: &str) -> Option<(String, &'s str)> {
        let environment = self.document.environment;
        // The name that the platform's compositions use.
        let short = (key == "auth").then(|| "AUTH".to_owned());
        let name = format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase());
        let file = format!("{name}_FILE");
        self.document
            .declared_variables
            .borrow_mut()
            .extend(short.clone());
        self.document
            .declared_variables
            .borrow_mut()
            .push(name.clone());
        short
            .into_iter()
            .chain([name, file])
            .find_map(|name| environment.get(&name).map(|value| (name.clone(), value)))
    }

    /// A variable whose name ends in `_FILE` names a file that holds the value.
    fn read_variable(&self, key: &str, variable: String, value: &str) -> Option<Found> {
        let place = format!("environment variable {variable}");
        if !variable.ends_with("_FILE") {
            return Some(Found {
                raw: Raw::Text(value.to_owned()),
                place,
            });
        }
        match std::fs::read_to_string(value) {
            Ok(text) => Some(Found {
                raw: Raw::Text(text.trim_end_matches(['\r', '\n']).to_owned()),
                place,
            }),
            Err(error) => {
                self.document.problem(
                    place,
                    key.to_owned(),
                    format!("cannot read {value}: {error}"),
                );
                None
            }
        }
    }
}

/// The declared name that a mistaken one was most likely meant to be.
fn suggestion(name: &str, declared: &[String]) -> String {
    declared
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
        .map_or(String::new(), |(_, known)| {
            format!("; did you mean {known}?")
        })
}
