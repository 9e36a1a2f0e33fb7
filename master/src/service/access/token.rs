//! The file that says which tokens hold: one a line, as `NAME ROLE sha256:HASH [EXPIRES]`.
//!
//! Read by the command line, asked by `mod.rs` at each call. Holds hashes only: a token is 32 random bytes, so a plain hash of it
//! cannot be guessed back. Failure: a line that does not read refuses the whole file, with its number.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::Role;

/// Tokens by the hash of their text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tokens(HashMap<String, Token>);

/// One token, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose it is, for people.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// It holds before this.
    pub expires: Option<DateTime<Utc>>,
}

/// A line that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: {cause}; a line reads NAME ROLE sha256:HASH [EXPIRES], as `millstream token` prints it"
)]
pub struct TokenError {
    /// Counted from 1.
    pub line: usize,
    /// What stands against it.
    pub cause: String,
}

/// How a token stands in the file.
pub fn hash(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Tokens {
    /// Of the file's text; blank lines and what follows `#` do not count.
    ///
    /// # Errors
    /// The first line that does not read.
    pub fn read(text: &str) -> Result<Self, TokenError> {
        let mut tokens = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let failed = |cause: String| TokenError {
                line: index + 1,
                cause,
            };
            let (hash, token) = read_line(line).map_err(failed)?;
            if let Some(twin) = tokens.insert(hash, token) {
                return Err(failed(format!("the hash is that of {:?} above", twin.name)));
            }
        }
        Ok(Self(tokens))
    }

    /// The line of this very token.
    pub fn find(&self, token: &str) -> Option<&Token> {
        self.0.get(&hash(token))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Token {
    /// Its line in the file.
    pub fn line(&self, hash: &str) -> String {
        let line = format!("{} {} {hash}", self.name, self.role.name());
        match self.expires {
            Some(expires) => format!("{line} {}", expires.format("%FT%TZ")),
            None => line,
        }
    }
}

fn read_line(line: &str) -> Result<(String, Token), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, role, hash, expires) = match words.as_slice() {
        [name, role, hash] => (name, role, hash, None),
        [name, role, hash, expires] => (name, role, hash, Some(expires)),
        _ => return Err(format!("it has {} words", words.len())),
    };
    let digits = hash.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("the hash is not sha256: and 64 hexadecimal digits".to_owned());
    }
    let role =
        Role::of(role).ok_or_else(|| format!("{role:?} is no role: read, submit and admin are"))?;
    let expires = match expires {
        None => None,
        Some(text) => {
            let at = DateTime::parse_from_rfc3339(text);
            Some(at.map_err(|error| {
                format!("{text:?} is no time such as 2027-01-31T00:00:00Z: {error}")
            })?)
        }
    };
    let token = Token {
        name: (*name).to_owned(),
        role,
        expires: expires.map(|at| at.to_utc()),
    };
    Ok((hash.to_ascii_lowercase(), token))
}
