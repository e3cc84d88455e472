//! What stands behind a key, and how each kind of it is read. Errors name the value, so no secret
//! is read by these.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

/// A value of the file or of a variable, before its kind is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A string of the file, or any variable.
    Text(String),
    /// A number of the file.
    Integer(i64),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// A list of strings of the file.
    List(Vec<String>),
}

impl Raw {
    /// Takes a value of the file.
    pub(super) fn from_file(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(Self::Text(text.to_string())),
            DeValue::Boolean(value) => Ok(Self::Boolean(*value)),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Self::Integer)
                .map_err(|_| format!("{} is too large a number", number.as_str())),
            DeValue::Array(items) => {
                let text =
                    |item: &toml::Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
                items
                    .iter()
                    .map(text)
                    .collect::<Option<Vec<_>>>()
                    .map(Self::List)
                    .ok_or_else(|| "must be a list of strings".to_owned())
            }
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
                Err(format!("must not be a {}", value.type_str()))
            }
        }
    }
}

/// A string.
pub(super) fn text(raw: Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) if !text.is_empty() => Ok(text),
        Raw::Text(_) => Err("must not be empty".into()),
        Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) => Err("must be a string".into()),
    }
}

/// Whatever can be read from a string: an address, a host pattern.
pub(super) fn parsed<T: FromStr<Err: Display>>(raw: Raw) -> Result<T, String> {
    let text = text(raw)?;
    text.parse().map_err(|error| format!("\"{text}\": {error}"))
}

/// A list of strings; a variable separates them by commas.
pub(super) fn list(raw: Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::List(items) => Ok(items),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        Raw::Integer(_) | Raw::Boolean(_) => Err("must be a list of strings".into()),
    }
}

/// A list whose items are read by `parse`; what is wrong with it says so of each item.
pub(super) fn each<T>(
    raw: Raw,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let (mut items, mut wrong) = (Vec::new(), Vec::new());
    for item in list(raw)? {
        match parse(&item) {
            Ok(item) => items.push(item),
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() {
        Ok(items)
    } else {
        Err(wrong.join("; "))
    }
}

/// `true` or `false`.
pub(super) fn boolean(raw: Raw) -> Result<bool, String> {
    match raw {
        Raw::Boolean(value) => Ok(value),
        Raw::Text(text) if text == "true" => Ok(true),
        Raw::Text(text) if text == "false" => Ok(false),
        Raw::Text(_) | Raw::Integer(_) | Raw::List(_) => Err("must be true or false".into()),
    }
}

/// A whole number within `range`.
pub(super) fn integer(
    range: std::ops::RangeInclusive<i64>,
) -> impl FnOnce(Raw) -> Result<i64, String> {
    move |raw| {
        let number = match raw {
            Raw::Integer(number) => Some(number),
            Raw::Text(text) => text.parse().ok(),
            Raw::Boolean(_) | Raw::List(_) => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!(
                    "must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// A number of things, within `range`.
pub(super) fn count(
    range: std::ops::RangeInclusive<u32>,
) -> impl FnOnce(Raw) -> Result<usize, String> {
    move |raw| {
        let number = integer(i64::from(*range.start())..=i64::from(*range.end()))(raw)?;
        usize::try_from(number).map_err(|error| error.to_string())
    }
}

/// One of several words.
pub(super) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl FnOnce(Raw) -> Result<T, String> {
    move |raw| {
        let given = match raw {
            Raw::Text(text) => text,
            Raw::Integer(number) => number.to_string(),
            Raw::Boolean(value) => value.to_string(),
            Raw::List(_) => "a list".to_owned(),
        };
        words
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let allowed: Vec<String> = words
                    .iter()
                    .map(|(word, _)| format!("\"{word}\""))
                    .collect();
                format!("must be {}, not \"{given}\"", allowed.join(" or "))
            })
    }
}

/// A span of time with its unit: `"500ms"`, `"30s"`, `"5m"`, `"1h"`; never zero.
pub(super) fn duration(raw: Raw) -> Result<Duration, String> {
    /// In milliseconds: past any timer that makes sense, and within what timers can hold.
    const A_YEAR: u64 = 31_536_000_000;
    let wrong = || {
        "must be a duration with a unit, such as \"500ms\", \"30s\", \"5m\" or \"1h\"".to_owned()
    };
    let Raw::Text(text) = raw else {
        return Err(wrong());
    };
    let (number, unit) = split_unit(&text);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let span = millis
        .zip(number)
        .map(|(unit, number): (u64, u64)| number.saturating_mul(unit));
    match span {
        None => Err(wrong()),
        Some(0) => Err("must be longer than 0".into()),
        Some(span @ 1..=A_YEAR) => Ok(Duration::from_millis(span)),
        Some(_) => Err("must not be longer than 365d".into()),
    }
}

/// An amount of bytes with its unit: `"512B"`, `"64KiB"`, `"5MiB"`, `"1GiB"`.
pub(super) fn size(raw: Raw) -> Result<u64, String> {
    let wrong = || "must be a size with a unit, such as \"512B\", \"64KiB\" or \"5MiB\"".to_owned();
    let Raw::Text(text) = raw else {
        return Err(wrong());
    };
    let (number, unit) = split_unit(&text);
    let bytes = match unit {
        "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    bytes
        .zip(number)
        .and_then(|(unit, number): (u64, u64)| number.checked_mul(unit))
        .ok_or_else(wrong)
}

fn split_unit(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        Raw::Text(text.into())
    }

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!(duration(raw("500ms")), Ok(Duration::from_millis(500)));
        assert_eq!(duration(raw("2 h")), Ok(Duration::from_secs(7200)));
        assert_eq!(size(raw("5MiB")), Ok(5 << 20));
        assert_eq!(size(raw("0B")), Ok(0));
    }

    #[test]
    fn what_is_wrong_with_a_duration_is_said() {
        for (text, expected) in [
            ("5", "with a unit"),
            ("0s", "longer than 0"),
            ("0d", "longer than 0"),
            ("366d", "not be longer than 365d"),
        ] {
            let said = duration(raw(text)).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
        assert!(duration(raw("365d")).is_ok());
    }

    #[test]
    fn every_item_of_a_list_that_is_wrong_is_named() {
        let digits = |item: &str| item.parse::<u8>().map_err(|_| format!("no {item}"));
        assert_eq!(each(raw("1,2"), digits), Ok(vec![1, 2]));
        assert_eq!(each(raw("a,2,b"), digits), Err("no a; no b".into()));
        assert!(each(Raw::Integer(1), digits).is_err());
    }

    #[test]
    fn numbers_without_a_unit_or_out_of_bounds_are_refused() {
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 parsecs",
            "0s",
            "99999999999999999999s",
            "400d",
            "18446744073709551615h",
        ] {
            assert!(duration(raw(text)).is_err(), "{text}");
        }
        for text in ["", "5", "5MB", "5mib", "-1B", "99999999999GiB"] {
            assert!(size(raw(text)).is_err(), "{text}");
        }
        assert!(duration(Raw::Integer(5)).is_err());
        assert!(integer(1..=3)(Raw::Integer(4)).is_err());
        assert_eq!(integer(1..=3)(raw("3")), Ok(3));
    }
}
