//! `WITH (...)` and `SET`: options typed, checked and taken one by one.
//!
//! Called for every source, sink and setting. An [`Options`] holds what is written; a connector takes what it knows,
//! and what is left is unknown, with the nearest known name. Text keeps its references; numbers, durations and words
//! are resolved here. Failure: each option is its own problem, so all are reported at once.

mod datagen;
mod files;
mod kafka;
mod password;
mod postgres;
mod settings;
mod sink;
mod source;

use std::collections::BTreeMap;

pub(super) use settings::read_settings;
pub(super) use sink::{EmitOption, SinkOptions, read_sink};
pub(super) use source::{RecordColumn, SourceOptions, read_source};

use millstream_common::secret::{self, Lookup};

use super::parse::{OptionClause, OptionValue};
use super::problem::{Place, Problem};
use super::value;

/// The options of one statement, being taken.
pub(super) struct Options<'a> {
    /// What stands in messages: `source clicks`.
    owner: String,
    place: Place,
    left: BTreeMap<String, (OptionValue, Place, Place)>,
    places: BTreeMap<String, Place>,
    known: Vec<String>,
    lookup: &'a dyn Lookup,
    problems: Vec<Problem>,
}

impl<'a> Options<'a> {
    /// Of `owner`, whose name stands at `place`.
    pub(super) fn new(
        owner: String,
        place: Place,
        clauses: &[OptionClause],
        lookup: &'a dyn Lookup,
    ) -> Self {
        let mut options = Self {
            owner,
            place,
            left: BTreeMap::new(),
            places: BTreeMap::new(),
            known: Vec::new(),
            lookup,
            problems: Vec::new(),
        };
        for clause in clauses {
            let name = clause.name.text.clone();
            let entry = (clause.value.clone(), clause.name.place, clause.place);
            options.places.insert(name.clone(), clause.place);
            if options.left.insert(name.clone(), entry).is_some() {
                let problem =
                    Problem::at(clause.name.place, format!("option {name} is given twice"));
                options.problems.push(problem);
            }
        }
        options
    }

    /// The place of the value of `name`, or of the owner.
    pub(super) fn place_of(&self, name: &str) -> Place {
        self.places.get(name).copied().unwrap_or(self.place)
    }

    /// A problem with an option, or with the owner where it is not given.
    fn refuse(&mut self, name: &str, message: impl Into<String>) -> &mut Problem {
        self.problems
            .push(Problem::at(self.place_of(name), message));
        self.problems.last_mut().expect("just pushed")
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.known.push(name.to_owned());
        self.left
            .remove(name)
            .map(|(value, _, _)| value.text().to_owned())
    }

    /// Text that keeps its references.
    fn text(&mut self, name: &str) -> Option<String> {
        let text = self.take(name)?;
        if text.trim().is_empty() {
            self.refuse(name, format!("option {name} is empty"));
            return None;
        }
        if text.contains("${") && secret::resolve_with(&text, &AnyReference).is_err() {
            self.refuse(
                name,
                format!("option {name} has a reference without its closing brace"),
            );
            return None;
        }
        Some(text)
    }

    /// Text that must be given; `example` stands in the hint.
    fn required_text(&mut self, name: &str, example: &str) -> String {
        let given = self.left.contains_key(name);
        match self.text(name) {
            Some(text) => text,
            None => {
                if !given {
                    let message = self.lacks(name);
                    self.refuse(name, message).hint =
                        Some(format!("add {name} = '{example}' to WITH (...)"));
                }
                String::new()
            }
        }
    }

    fn lacks(&self, name: &str) -> String {
        format!("{} lacks the option {name}", self.owner)
    }

    /// A value with its references resolved now.
    fn resolved(&mut self, name: &str) -> Option<String> {
        let text = self.take(name)?;
        self.resolve(name, &text)
    }

    /// A value read by `parse`, whose error is the message.
    fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.resolved(name)?;
        match parse(text.trim()) {
            Ok(parsed) => Some(parsed),
            Err(message) => {
                self.refuse(name, format!("option {name}: {message}"));
                None
            }
        }
    }

    /// A duration in milliseconds.
    fn millis(&mut self, name: &str, default: u64) -> u64 {
        self.parsed(name, value::duration_millis).unwrap_or(default)
    }

    /// A duration of at least a millisecond.
    fn positive_millis(&mut self, name: &str, default: u64) -> u64 {
        let millis = self.millis(name, default);
        if millis == 0 {
            self.refuse(name, format!("option {name} must be longer than nothing"));
            return default;
        }
        millis
    }

    /// A size in bytes.
    fn bytes(&mut self, name: &str, default: u64) -> u64 {
        self.parsed(name, value::bytes).unwrap_or(default)
    }

    /// A whole number of at least `least`.
    fn number(&mut self, name: &str, least: u64) -> Option<u64> {
        self.parsed(name, |text| match text.replace('_', "").parse::<u64>() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(format!("{text:?} is no whole number of at least {least}")),
        })
    }

    /// `true` or `false`.
    fn flag(&mut self, name: &str, default: bool) -> bool {
        self.word(name, &[("true", true), ("false", false)])
            .unwrap_or(default)
    }

    /// One of some words.
    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.resolved(name)?;
        let folded = text.trim().to_lowercase();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == folded) {
            return Some(*value);
        }
        let names = words.iter().map(|(word, _)| *word);
        let all = names
            .clone()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(", ");
        let nearest = millstream_common::suggest::nearest(&folded, names);
        let problem = self.refuse(name, format!("option {name} cannot be {text:?}"));
        problem.hint = Some(match nearest {
            Some(nearest) => format!("did you mean '{nearest}'?"),
            None => format!("it is one of {all}"),
        });
        None
    }

    /// Names separated by commas, folded as SQL names.
    fn names(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.resolved(name) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for part in text.split(',').map(str::trim) {
            let quoted = part
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            match quoted {
                Some(quoted) => names.push(quoted.to_owned()),
                None if part.is_empty() => {
                    self.refuse(name, format!("option {name} has an empty name"));
                }
                None => names.push(part.to_lowercase()),
            }
        }
        names
    }

    /// Takes every option whose name starts with `prefix`; values keep their references.
    fn with_prefix(&mut self, prefix: &str) -> Vec<Prefixed> {
        let taken = self.left.extract_if(.., |name, _| name.starts_with(prefix));
        taken
            .map(|(name, (value, name_place, _))| Prefixed {
                rest: name[prefix.len()..].to_owned(),
                value: value.text().to_owned(),
                name_place,
                name,
            })
            .collect()
    }

    /// `text` with its references resolved now; the problem is put at the value of `name`.
    fn resolve(&mut self, name: &str, text: &str) -> Option<String> {
        match secret::resolve_with(text, self.lookup) {
            Ok(resolved) => Some(resolved.expose().to_owned()),
            Err(error) => {
                self.refuse(name, format!("option {name}: {error}"));
                None
            }
        }
    }

    /// Every option nobody took is unknown.
    fn finish(mut self) -> (BTreeMap<String, Place>, Vec<Problem>) {
        for (name, (_, name_place, _)) in std::mem::take(&mut self.left) {
            let message = format!("{} has no option {name}", self.owner);
            let known = self.known.iter().map(String::as_str);
            let nearest = millstream_common::suggest::nearest(&name, known);
            // An option that is misspelt is not missing as well.
            if let Some(lacks) = nearest.map(|nearest| self.lacks(nearest)) {
                self.problems.retain(|problem| problem.message != lacks);
            }
            let problem = Problem::at(name_place, message);
            let problem = match nearest {
                Some(nearest) => problem.hint(format!("did you mean {nearest}?")),
                None => problem.hint(format!("options are {}", self.known.join(", "))),
            };
            self.problems.push(problem);
        }
        (self.places, self.problems)
    }
}

/// An option whose name starts with a prefix.
struct Prefixed {
    name: String,
    /// The name behind the prefix.
    rest: String,
    value: String,
    name_place: Place,
}

/// Resolves every reference, to find out only whether the text is well formed.
struct AnyReference;

impl Lookup for AnyReference {
    fn variable(&self, _: &str) -> Option<String> {
        Some("x".to_owned())
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Ok("x".to_owned())
    }
}

/// Connectors that are meant but not there yet.
const LATER: [&str; 8] = [
    "snowflake",
    "http",
    "rest",
    "delta",
    "iceberg",
    "s3",
    "mysql",
    "clickhouse",
];

/// Takes `connector`; a problem with the nearest of `known` if it is none of them.
fn connector(options: &mut Options<'_>, known: &[&str], example: &str) -> Option<String> {
    if !options.left.contains_key("connector") {
        options.required_text("connector", example);
        // Its other options are unknowable, so they are not called unknown; one of them may be a misspelt connector.
        let is_misspelt =
            |name: &str| millstream_common::suggest::nearest(name, ["connector"]).is_some();
        options.left.retain(|name, _| is_misspelt(name));
        return None;
    }
    let text = options.resolved("connector")?.trim().to_lowercase();
    if known.contains(&text.as_str()) {
        return Some(text);
    }
    let all = known
        .iter()
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let later = LATER.contains(&text.as_str()) || text == "postgres";
    let nearest = millstream_common::suggest::nearest(&text, known.iter().copied());
    let message = if later {
        format!("connector '{text}' is not supported here yet")
    } else {
        format!("unknown connector '{text}'")
    };
    options.refuse("connector", message).hint = Some(match nearest {
        Some(nearest) if !later => format!("did you mean '{nearest}'?"),
        _ => format!("it is one of {all}"),
    });
    // Its other options are unknowable, so they are not called unknown.
    options.left.clear();
    None
}
