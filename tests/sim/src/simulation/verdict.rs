//! Whether a seed went well: the oracle's rows in every sink, at an epoch and at the end, and the sums of the counters.
//!
//! Called by the simulation: after each Epoch, and once everything is whole again. Pure but for the lock of the outside.
//! Failure: the first rule that is broken, as a sentence.

use super::*;
use crate::outside::sent_back::Said;

impl Simulation {
    pub(super) fn verdict(&self, workload: &mut Workload) -> Option<String> {
        if self.case.is_some() {
            return Some("the step was never made".to_owned());
        }
        self.outside.with(|world| {
            let sinks: Vec<&str> = workload.tables().chain(workload.others.clone()).collect();
            let differs = sinks.into_iter().find_map(|sink| {
                let again = world.ledger.again(sink);
                workload.difference(sink, &again, &rows(world, sink))
            });
            let late = self.blocked.as_ref().and_then(Blocked::verdict);
            let stayed = world.ledger.chains().find_map(Chain::stayed);
            if let Some(wrong) = differs.or(late).or(stayed) {
                return Some(wrong);
            }
            let mut sum = RowCounters::default();
            for chain in world.ledger.chains() {
                chain
                    .progress
                    .counters
                    .values()
                    .for_each(|one| sum.add(one));
            }
            let is_closed = sum.read == workload.record_count
                && sum.rejected == workload.rejected_count()
                && sum.read == sum.accepted + sum.rejected + sum.dropped;
            (!is_closed).then(|| {
                let records = workload.record_count;
                format!("INV-10: the counters say {sum:?} of {records} records")
            })
        })
    }
}

/// What a reader of the sink finds.
fn rows(world: &World, sink: &str) -> Vec<Row> {
    match sink {
        TOPIC_OUT => topics::rows(&world.cluster, TOPIC_OUT),
        FOLDER => disk::rows(),
        table => {
            let table = world.tables.get(table);
            table.map(|table| table.rows()).unwrap_or_default()
        }
    }
}

/// The first state, or sink, that is not what the records come to as of the epoch it is at; of one epoch in `every`.
pub(super) fn differs_at_epoch(
    world: &mut World,
    states: &mut States,
    workload: &mut Workload,
    every: u64,
) -> Option<String> {
    // A reader of committed records may look at any moment, and sees whole epochs only.
    if std::mem::take(&mut world.has_topic_changed) {
        let said = topics::said(&world.cluster);
        if said.is_empty() && !topics::rows(&world.cluster, TOPIC_OUT).is_empty() {
            return Some(format!("{TOPIC_OUT} has rows and no marker"));
        }
        for said in said.iter().skip(world.topic_said_count) {
            world.ledger.says(TOPIC_OUT, &chain_of(said), said);
        }
        world.topic_said_count = said.len();
        if !said.is_empty() {
            // Rows may have come without a marker.
            world.ledger.moved.insert(TOPIC_OUT.to_owned());
        }
    }
    if std::mem::take(&mut world.has_disk_changed)
        && let Some(said) = disk::said()
    {
        world.ledger.says(FOLDER, &chain_of(&said), &said);
    }
    for come in std::mem::take(&mut world.ledger.come) {
        if !come.epoch.0.is_multiple_of(every) {
            continue;
        }
        let expected = workload.at(come.epoch, &come.progress);
        if let Some(differs) = states.difference(&come.parts, &world.objects, expected) {
            return Some(format!("{differs}, at epoch {}", come.epoch));
        }
    }
    for sink in std::mem::take(&mut world.ledger.moved) {
        let Some((epoch, progress)) = world.ledger.held_by(&sink) else {
            continue;
        };
        if !epoch.0.is_multiple_of(every) {
            continue;
        }
        let (rows, again) = (rows(world, &sink), world.ledger.again(&sink));
        let at = (epoch, &progress);
        let differs = workload.difference_at(at, &sink, &again, &rows);
        if differs.is_some() {
            return differs;
        }
    }
    None
}

fn chain_of(said: &Said) -> String {
    format!("{JOB} {}", said.incarnation)
}
