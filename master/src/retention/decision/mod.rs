//! What in storage may go: a pure function of its keys and of what the log says is needed.
//!
//! Called by the collector with keys that were listed before the log was read to its end. That order is what makes it safe: what an
//! entry of the log names was in storage before the entry, so a listed object that the log, read later, neither names nor
//! can come to name is garbage for ever. Can come to be named: parts and segments of epochs behind the head, what a sink of the
//! running generation refused, rows that a master of the newest term stored to be sent again, and pages that a master may have made that
//! has slept no longer than log objects are kept for it. Everything that is not understood stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_common::ids::{Epoch, Generation, Seq, Term};
use millstream_common::log::boundary::Boundary;
use millstream_common::mutant::{self, Mutant};

use super::Retention;

/// What the log says is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// By incarnation; those of another are of lives that were begun anew.
    pub lives: BTreeMap<String, Life>,
    /// The newest: an entry of an older one does not count any more (INV-4).
    pub term: Term,
    /// Log objects up to here may go.
    pub log_floor: Option<Seq>,
    /// Boundaries to keep.
    pub boundaries: BTreeSet<Boundary>,
}

/// What one life of a job needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// The last committed epoch; what belongs to a later one is on its way.
    pub head: Epoch,
    /// The state parts of the retained checkpoints and savepoints; of any life.
    pub parts: BTreeSet<String>,
    /// Epochs up to this one are forgotten: no sink lacks them, or is sent back to before them.
    pub forgotten: Epoch,
    /// Outputs with a retention of their own.
    pub kept_outputs: BTreeSet<String>,
    /// What is kept of them.
    pub letters: KeptLetters,
    /// Rows sent through the job again, here or behind a savepoint.
    pub named_replays: BTreeSet<String>,
    /// Rows sent through the job again that were read to their end long ago.
    pub read_replays: BTreeSet<String>,
    /// Those that are to be read, here or behind a savepoint; of any life.
    pub unread_replays: BTreeSet<String>,
}

/// The dead letters of a life that the log names and the retention keeps.
///
/// An object among them that is not named was left behind by a generation that is over: that of the running one may be on its
/// way. What pages name is not at hand; objects of their epochs stay until all that is kept is newer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptLetters {
    /// The keys that are not in pages.
    pub named: BTreeSet<String>,
    /// The pages.
    pub pages: BTreeSet<String>,
    /// Names up to this epoch may be in a page.
    pub paged_through: Epoch,
    /// Nothing that is kept has an older epoch in its name.
    pub first: Option<Epoch>,
    /// The newest assignment.
    pub generation: Generation,
    /// What sinks refused and no Epoch names: the newest assignment when it was first seen.
    pub unnamed_rejects: BTreeMap<String, Generation>,
}

impl KeptLetters {
    /// Whether an object of `generation` with `epoch` in its name may go.
    fn may_go(&self, key: &str, epoch: Epoch, generation: Option<Generation>) -> bool {
        let is_over = generation.is_some_and(|generation| generation < self.generation);
        let is_paged = epoch <= self.paged_through && self.first.is_none_or(|first| epoch >= first);
        is_over && !is_paged && !self.named.contains(key)
    }
}

/// What a key stands for.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    Log(Seq),
    Boundary(Boundary),
    Part {
        incarnation: &'a str,
        epoch: Epoch,
    },
    Segment {
        incarnation: &'a str,
        output: &'a str,
        epoch: Epoch,
        generation: Option<Generation>,
    },
    /// Rows that a sink refused.
    Rejects {
        incarnation: &'a str,
        epoch: Epoch,
    },
    /// A part of the index of dead letters.
    LetterPage {
        incarnation: &'a str,
        /// Of the boundary that it was made for.
        seq: Option<Seq>,
    },
    /// Rows sent through the job again.
    Replay {
        incarnation: &'a str,
        /// Of the master that stored them.
        term: Option<Term>,
    },
    /// By its last epoch.
    Backlog {
        incarnation: &'a str,
        epoch: Epoch,
    },
}

fn kind_of(key: &str) -> Option<Kind<'_>> {
    let (folder, rest) = key.split_once('/')?;
    match folder {
        "log" => Some(Kind::Log(Seq(number(rest)?))),
        "boundary" => Boundary::from_key(key).map(Kind::Boundary),
        "state" => {
            let (incarnation, rest) = rest.split_once('/')?;
            let (_, name) = rest.rsplit_once('/')?;
            let epoch = Epoch(number(name.split_once('-')?.0)?);
            Some(Kind::Part { incarnation, epoch }).filter(|_| is_incarnation(incarnation))
        }
        "backlog" => {
            let (incarnation, name) = rest.split_once('/')?;
            let epoch = Epoch(number(name.split_once('-')?.0)?);
            Some(Kind::Backlog { incarnation, epoch }).filter(|_| is_incarnation(incarnation))
        }
        "segments" => {
            let (incarnation, rest) = rest.split_once('/')?;
            let (output, name) = rest.split_once('/')?;
            // No epoch has the number 0: such a name does not say when the segment may go.
            let (epoch, rest) = name.split_once('-')?;
            let epoch = Epoch(number(epoch).filter(|epoch| *epoch > 0)?);
            let generation = rest.split('-').next().and_then(|text| text.parse().ok());
            let segment = Kind::Segment {
                incarnation,
                output,
                epoch,
                generation: generation.map(Generation),
            };
            Some(segment).filter(|_| is_incarnation(incarnation))
        }
        "rejects" => {
            let (incarnation, rest) = rest.split_once('/')?;
            let (_, name) = rest.split_once('/')?;
            let epoch = Epoch(number(name.split_once('-')?.0)?);
            Some(Kind::Rejects { incarnation, epoch }).filter(|_| is_incarnation(incarnation))
        }
        "letters" | "replays" => {
            let (incarnation, rest) = rest.split_once('/')?;
            let name = rest.rsplit('/').next().unwrap_or(rest);
            let first = name.split_once('-').and_then(|(first, _)| number(first));
            let kind = match folder {
                "letters" => Kind::LetterPage {
                    incarnation,
                    seq: first.map(Seq),
                },
                _ => Kind::Replay {
                    incarnation,
                    term: first.map(Term),
                },
            };
            Some(kind).filter(|_| is_incarnation(incarnation))
        }
        _ => None,
    }
}

/// Twelve digits, as all our positions and epochs are written.
fn number(text: &str) -> Option<u64> {
    let is_ours = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| text.parse().ok()).flatten()
}

fn is_incarnation(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok_and(|uuid| uuid.to_string() == text)
}

impl Needed {
    /// Whether the object of that key may go.
    pub fn may_go(&self, key: &str) -> bool {
        match kind_of(key) {
            None => false,
            Some(Kind::Log(seq)) => self.log_floor.is_some_and(|floor| seq <= floor),
            Some(Kind::Boundary(boundary)) => {
                let is_older = self
                    .boundaries
                    .last()
                    .is_some_and(|newest| boundary < *newest);
                is_older && !self.boundaries.contains(&boundary)
            }
            Some(Kind::Part { incarnation, epoch }) => match self.lives.get(incarnation) {
                Some(life) => {
                    let is_old = epoch <= life.head || mutant::is(Mutant::CollectUnpublished);
                    is_old && !self.is_part(key)
                }
                None => !self.is_part(key),
            },
            // One that no entry names is of a try that failed: it is not missed once its epochs are not.
            Some(Kind::Backlog { incarnation, epoch }) => match self.lives.get(incarnation) {
                Some(life) => epoch <= life.forgotten.min(life.head),
                None => true,
            },
            Some(Kind::Segment {
                incarnation,
                output,
                epoch,
                generation,
            }) => match self.lives.get(incarnation) {
                Some(life) if life.kept_outputs.contains(output) => {
                    life.letters.may_go(key, epoch, generation)
                }
                Some(life) => {
                    let forgotten = match mutant::is(Mutant::CollectUndelivered) {
                        true => life.head,
                        false => life.forgotten.min(life.head),
                    };
                    epoch <= forgotten
                }
                None => true,
            },
            Some(Kind::Rejects { incarnation, epoch }) => match self.lives.get(incarnation) {
                Some(life) => {
                    let seen = life.letters.unnamed_rejects.get(key).copied();
                    life.letters.may_go(key, epoch, seen)
                }
                None => true,
            },
            // A page that the log does not name may be about to be named by the boundary of a master that sleeps.
            Some(Kind::LetterPage { incarnation, seq }) => match self.lives.get(incarnation) {
                Some(life) => self.is_behind_floor(seq) && !life.letters.pages.contains(key),
                None => true,
            },
            Some(Kind::Replay { incarnation, term }) => {
                let is_unread = |life: &Life| life.unread_replays.contains(key);
                let is_named = |life: &Life| life.named_replays.contains(key);
                let life = self.lives.get(incarnation);
                let is_over = life.is_none_or(|life| life.read_replays.contains(key));
                // Its master wrote no entry for it before the Fence of the next, and none counts that it writes behind.
                let is_left =
                    term.is_some_and(|term| term < self.term) && !self.lives.values().any(is_named);
                (is_over || is_left) && !self.lives.values().any(is_unread)
            }
        }
    }

    /// Log objects of that position are not waited for any more.
    fn is_behind_floor(&self, seq: Option<Seq>) -> bool {
        let floor = self.log_floor;
        seq.is_some_and(|seq| floor.is_some_and(|floor| seq <= floor))
    }

    /// A life that was begun from a checkpoint of another needs parts of that one.
    fn is_part(&self, key: &str) -> bool {
        self.lives.values().any(|life| life.parts.contains(key))
    }

    /// The first of `keys` that may go, at most `count_max`: oldest first, for keys sort by position and epoch.
    pub fn garbage<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a str>,
        count_max: usize,
    ) -> Vec<&'a str> {
        let garbage = keys.into_iter().filter(|key| self.may_go(key));
        garbage.take(count_max).collect()
    }
}

/// Of the boundaries in storage, those to keep, and the position up to which log objects may go: that of the newest
/// boundary that is old enough. Between that one and the newest about sixteen stay.
pub fn keep_boundaries(
    known: &BTreeSet<Boundary>,
    retention: &Retention,
    now_us: i64,
) -> (BTreeSet<Boundary>, Option<Seq>) {
    let age = |boundary: &Boundary| {
        let age_us = now_us.saturating_sub(boundary.made_at_us);
        Duration::from_micros(age_us.try_into().unwrap_or_default())
    };
    let floor = known
        .iter()
        .rev()
        .find(|boundary| age(boundary) >= retention.log);
    let mut kept = BTreeSet::new();
    let mut last: Option<&Boundary> = None;
    for boundary in known
        .iter()
        .filter(|boundary| floor.is_none_or(|floor| *boundary >= floor))
    {
        let is_apart = last.is_none_or(|last| age(last) >= age(boundary) + retention.log / 16);
        if is_apart || Some(boundary) == known.last() {
            kept.insert(boundary.clone());
            last = Some(boundary);
        }
    }
    (kept, floor.map(|floor| floor.seq))
}

#[cfg(test)]
mod tests;
