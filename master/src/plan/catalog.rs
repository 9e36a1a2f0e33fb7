//! The relations a job has named so far.
//!
//! Filled statement by statement by `plan_job`; read by the SQL planner (as tables) and by `lower`. A relation whose statement
//! has errors stays as [`Entry::Broken`], so that what reads it is skipped instead of reported again.

use arrow::datatypes::SchemaRef;
use indexmap::IndexMap;

use super::lower::Stream;
use super::problem::{Place, Problem};

/// A named stream of rows: a source, a view, or a source's dead letters.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    pub(super) schema: SchemaRef,
    /// More than one after UNION ALL.
    pub(super) streams: Vec<Stream>,
}

/// What stands behind a name.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Known(Relation),
    /// Its statement has errors.
    Broken,
}

/// All names of a job's relations.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    entries: IndexMap<String, (Entry, Place)>,
}

impl Catalog {
    /// Adds a relation; a name that is taken is a problem.
    pub(super) fn insert(&mut self, name: &str, place: Place, entry: Entry) -> Result<(), Problem> {
        if let Some((_, first)) = self.entries.get(name) {
            let message = format!("the name {name} is taken");
            return Err(Problem::at(place, message)
                .hint(format!("it is already used in line {}", first.line)));
        }
        self.entries.insert(name.to_owned(), (entry, place));
        Ok(())
    }

    /// The relation of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name).map(|(entry, _)| entry)
    }

    /// Every relation without errors, in order of the statements.
    pub(super) fn relations(&self) -> impl Iterator<Item = (&str, &Relation)> {
        let entries = self.entries.iter();
        entries.filter_map(|(name, (entry, _))| match entry {
            Entry::Known(relation) => Some((name.as_str(), relation)),
            Entry::Broken => None,
        })
    }

    /// Every name, for suggestions.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The problem that `name` is no relation.
    pub(super) fn unknown(&self, name: &str, place: Place) -> Problem {
        let problem = Problem::at(place, format!("unknown relation {name}"));
        // Only the case differs: the name was created in quotes and has to be read in quotes.
        let quoted = self
            .names()
            .find(|known| known.to_lowercase() == name && *known != name);
        match quoted {
            Some(known) => problem.hint(format!("quote it: \"{known}\"")),
            None => problem.nearest(name, self.names()),
        }
    }
}
