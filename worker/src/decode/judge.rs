//! What happens to the rows of a batch once their first columns are there: rules, time, dead letters, counters.
//!
//! Owned by `decoder.rs`. Each step refuses rows and the next sees only what is left.
//! Keeps INV-10: every record is accepted, rejected or dropped, and counted so; a late row counts as rejected, also
//! where it stays in the batch for paths that keep no time.

use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::error::ArrowError;
use millstream_common::dead_letter::Code;
use millstream_common::plan::OnViolation;
use millstream_common::report::RowCounters;
use millstream_common::time::ClockRef;

use super::DecodeError;
use super::dead_letters;
use super::input::Records;
use super::places::RowPlaces;
use super::refusals::{Refusal, Refusals};
use super::rows::Rows;
use super::rules::Rules;
use super::splits::{Splits, TimeRule};
use crate::consume::{DecodeTime, DecodedRows};

/// Applies a source's rules.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) source: String,
    pub(super) rules: Rules,
    pub(super) splits: Splits,
    pub(super) time: Option<TimeRule>,
    pub(super) on_violation: OnViolation,
    pub(super) late_rows_needed: bool,
    pub(super) clock: ClockRef,
    /// When the batch began to be decoded, monotonic.
    pub(super) begun: Duration,
}

/// The late rows of a batch.
#[derive(Default)]
struct Late {
    /// By row; empty where no row is late.
    flags: Vec<bool>,
    refusals: Vec<Refusal>,
}

impl Judge {
    /// A batch begins to be decoded.
    pub(super) fn begin(&mut self) {
        self.begun = self.clock.monotonic();
    }

    /// Judges the rows whose first columns are `columns`.
    pub(super) fn finish(
        &mut self,
        records: &impl Records,
        columns: Vec<Option<ArrayRef>>,
        refusals: Refusals,
    ) -> Result<DecodedRows, DecodeError> {
        let mut rows = Rows::new(columns, records.count());
        let (late, flags, refusals) = self
            .judge(records, &mut rows, refusals)
            .map_err(|error| self.broken(error))?;
        let mut counters = RowCounters {
            read: records.count() as u64,
            bytes: records.bytes(),
            ..RowCounters::default()
        };
        let mut rejected = refusals.into_sorted();
        self.apply_violations(records, &mut rejected, &mut counters)?;
        rejected.extend(late);
        rejected.sort_by_key(|refusal| refusal.record);
        counters.rejected = rejected.len() as u64;
        counters.accepted = counters.read - counters.rejected - counters.dropped;
        let rejects = match rejected.is_empty() {
            true => None,
            false => Some(self.dead_letters(&rejected, records)?),
        };
        let batch = self
            .rules
            .batch(&rows)
            .map_err(|error| self.broken(error))?;
        let late_count = flags.as_ref().map_or(0, BooleanArray::true_count);
        debug_assert_eq!(
            counters.accepted as usize,
            batch.num_rows() - late_count,
            "INV-10"
        );
        Ok(DecodedRows {
            places: RowPlaces::of(&rows, records, &self.splits),
            batch,
            late: flags,
            rejects,
            counters,
            codes: codes_of(&rejected),
            links: Vec::new(),
            decoded: DecodeTime {
                begun: self.begun,
                ended: self.clock.monotonic(),
            },
        })
    }

    /// Takes the refused rows out of `rows`; the late ones, which of the rows left are late, and the refused.
    fn judge(
        &mut self,
        records: &impl Records,
        rows: &mut Rows,
        mut refusals: Refusals,
    ) -> Result<(Vec<Refusal>, Option<BooleanArray>, Refusals), ArrowError> {
        let time_column = self.time.as_ref().map(|time| time.column);
        rows.drop_refused(&mut refusals, 0, time_column)?;
        let before = refusals.count();
        self.rules.compute(rows, &mut refusals)?;
        rows.drop_refused(&mut refusals, before, time_column)?;
        let before = refusals.count();
        self.rules.check(rows, &mut refusals)?;
        rows.drop_refused(&mut refusals, before, time_column)?;
        let before = refusals.count();
        let late = self.find_late(records, rows, &mut refusals);
        if late.flags.is_empty() && refusals.count() == before {
            return Ok((Vec::new(), None, refusals));
        }
        let is_untimed = |row: usize| refusals.is_refused(rows.record(row));
        let is_late = |row: usize| late.flags.get(row).copied().unwrap_or(false);
        let unwanted = |row: usize| is_untimed(row) || is_late(row) && !self.late_rows_needed;
        let mut flags = match late.flags.is_empty() || !self.late_rows_needed {
            true => None,
            false => Some(BooleanArray::from(late.flags.clone())),
        };
        if (0..rows.count()).any(unwanted) {
            let keep: BooleanArray = (0..rows.count()).map(|row| Some(!unwanted(row))).collect();
            rows.retain(&keep)?;
            flags = match flags {
                Some(flags) => Some(filter(&flags, &keep)?.as_boolean().clone()),
                None => None,
            };
        }
        Ok((late.refusals, flags, refusals))
    }

    fn find_late(&mut self, records: &impl Records, rows: &Rows, refusals: &mut Refusals) -> Late {
        let Some(rule) = &self.time else {
            return Late::default();
        };
        let times = rows.times(rule.column);
        let times = times.expect("the plan's event time is a timestamp, checked when built");
        let slot_of = |record| records.slot(record);
        let late = self.splits.walk(rule, &times, rows, slot_of, refusals);
        if late.is_empty() {
            return Late::default();
        }
        let mut flags = vec![false; rows.count()];
        let refusals = late.iter().map(|late| {
            flags[late.row] = true;
            Refusal {
                record: rows.record(late.row),
                code: Code::Late,
                reason: format!(
                    "column \"{}\": {} is older than the watermark {}",
                    rule.column_name, late.event_time, late.watermark
                ),
                event_time: Some(late.event_time.0),
            }
        });
        let refusals = refusals.collect();
        Late { flags, refusals }
    }

    /// Does with broken records what `on_violation` says; late rows are not concerned.
    fn apply_violations(
        &self,
        records: &impl Records,
        refusals: &mut Vec<Refusal>,
        counters: &mut RowCounters,
    ) -> Result<(), DecodeError> {
        match (self.on_violation, refusals.first()) {
            (OnViolation::Fail, Some(first)) => Err(DecodeError::Violation {
                origin: self
                    .splits
                    .get(records.slot(first.record))
                    .origin
                    .to_string(),
                position: records.position(first.record),
                code: first.code,
                reason: first.reason.clone(),
            }),
            (OnViolation::Drop, Some(_)) => {
                counters.dropped = refusals.len() as u64;
                refusals.clear();
                Ok(())
            }
            (OnViolation::DeadLetter, _) | (_, None) => Ok(()),
        }
    }

    fn dead_letters(
        &self,
        refusals: &[Refusal],
        records: &impl Records,
    ) -> Result<RecordBatch, DecodeError> {
        let now = self.clock.unix_micros();
        dead_letters::batch(&self.source, refusals, records, &self.splits, now)
            .map_err(|error| self.broken(error))
    }

    /// A defect of ours.
    pub(super) fn broken(&self, cause: impl ToString) -> DecodeError {
        DecodeError::Batch {
            source_name: self.source.clone(),
            cause: cause.to_string(),
        }
    }
}

/// How many were refused for which reason.
fn codes_of(rejected: &[Refusal]) -> Vec<(Code, u64)> {
    let mut codes: Vec<(Code, u64)> = Vec::new();
    for refusal in rejected {
        match codes.iter_mut().find(|(code, _)| *code == refusal.code) {
            Some((_, count)) => *count += 1,
            None => codes.push((refusal.code, 1)),
        }
    }
    codes
}
