//! References in option strings: `${NAME}`, `${NAME:-default}`, `${file:/run/secrets/x}`.
//!
//! Specs keep the reference; [`resolve`] is called only by the process that connects, and its result
//! is never stored, logged or sent. Failure: an unknown name is an error that says what to set.

use std::fmt;

/// A reference that does not resolve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The environment lacks the variable and no default is given.
    #[error("environment variable {0} is not set: set it, or write ${{{0}:-default}}")]
    Unset(String),
    /// The file of a secret cannot be read.
    #[error("read secret file {path}: {cause}")]
    File {
        /// The file named by the reference.
        path: String,
        /// What the system says.
        cause: String,
    },
    /// `${` without its `}`.
    #[error("reference in {0:?} lacks its closing brace")]
    Unclosed(String),
}

/// Where references are looked up. The process's environment and files, or a test's table.
pub trait Lookup {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The text of a file, without its last newline.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// The process's own environment and file system.
pub struct Environment;

impl Lookup for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| error.to_string())
    }
}

/// A value that came out of a reference: shown as `***`, handed over only by [`Resolved::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved(String);

impl Resolved {
    /// The plain value, for the driver that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// `text` with its references replaced from the process's environment.
pub fn resolve(text: &str) -> Result<Resolved, Error> {
    resolve_with(text, &Environment)
}

/// `text` with its references replaced from `lookup`.
pub fn resolve_with(text: &str, lookup: &dyn Lookup) -> Result<Resolved, Error> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        plain.push_str(&rest[..start]);
        let reference = &rest[start + 2..];
        let end = reference
            .find('}')
            .ok_or_else(|| Error::Unclosed(text.to_owned()))?;
        plain.push_str(&value_of(&reference[..end], lookup)?);
        rest = &reference[end + 1..];
    }
    plain.push_str(rest);
    Ok(Resolved(plain))
}

fn value_of(reference: &str, lookup: &dyn Lookup) -> Result<String, Error> {
    if let Some(path) = reference.strip_prefix("file:") {
        return lookup.file(path).map_err(|cause| Error::File {
            path: path.to_owned(),
            cause,
        });
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    lookup
        .variable(name)
        .filter(|value| !value.is_empty())
        .or_else(|| default.map(str::to_owned))
        .ok_or_else(|| Error::Unset(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table;

    impl Lookup for Table {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "HOST").then(|| "db".to_owned())
        }

        fn file(&self, path: &str) -> Result<String, String> {
            if path == "/run/secrets/x" {
                Ok("pass".to_owned())
            } else {
                Err("no such file".to_owned())
            }
        }
    }

    fn plain(text: &str) -> Result<String, Error> {
        resolve_with(text, &Table).map(|resolved| resolved.expose().to_owned())
    }

    #[test]
    fn references_are_replaced_from_environment_default_and_file() {
        assert_eq!(plain("${HOST}:${PORT:-5432}"), Ok("db:5432".to_owned()));
        assert_eq!(plain("p=${file:/run/secrets/x}!"), Ok("p=pass!".to_owned()));
        assert_eq!(plain("plain $5"), Ok("plain $5".to_owned()));
    }

    #[test]
    fn an_unset_variable_says_what_to_set() {
        assert_eq!(plain("${NOPE}"), Err(Error::Unset("NOPE".to_owned())));
        assert_eq!(plain("${NOPE"), Err(Error::Unclosed("${NOPE".to_owned())));
    }

    #[test]
    fn a_resolved_value_is_not_shown() {
        let shown = format!("{:?}", resolve_with("${HOST}", &Table));
        assert!(!shown.contains("db"), "{shown}");
    }
}
