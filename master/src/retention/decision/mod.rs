//! What in storage may go: a pure function of its keys and of what the log says is needed.
//!
//! Called by the collector with keys that were listed before the log was read to its end. That order is what makes it safe: what an
//! entry of the log names was in storage before the entry, so a listed object that the log, read later, neither names nor
//! can come to name is garbage for ever. Can come to be named: parts and segments of epochs behind the head. Everything that is
//! not understood stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_common::ids::{Epoch, Seq};
use millstream_common::log::boundary::Boundary;
use millstream_common::mutant::{self, Mutant};

use super::Retention;

/// What the log says is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// By incarnation; those of another are of lives that were begun anew.
    pub lives: BTreeMap<String, Life>,
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
    /// The state parts of the retained checkpoints.
    pub parts: BTreeSet<String>,
    /// Every sink has held this epoch for long enough.
    pub delivered: Epoch,
    /// Outputs with a retention of their own.
    pub kept_outputs: BTreeSet<String>,
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
            let epoch = Epoch(number(name.split_once('-')?.0).filter(|epoch| *epoch > 0)?);
            let segment = Kind::Segment {
                incarnation,
                output,
                epoch,
            };
            Some(segment).filter(|_| is_incarnation(incarnation))
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
                    is_old && !life.parts.contains(key)
                }
                None => true,
            },
            // One that no entry names is of a try that failed: it is not missed once its epochs are not.
            Some(Kind::Backlog { incarnation, epoch }) => match self.lives.get(incarnation) {
                Some(life) => epoch <= life.delivered.min(life.head),
                None => true,
            },
            Some(Kind::Segment {
                incarnation,
                output,
                epoch,
            }) => match self.lives.get(incarnation) {
                Some(life) => {
                    let delivered = match mutant::is(Mutant::CollectUndelivered) {
                        true => life.head,
                        false => life.delivered.min(life.head),
                    };
                    epoch <= delivered && !life.kept_outputs.contains(output)
                }
                None => true,
            },
        }
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
