//! Sinks that were sent back, as the ledger sees them: who said so, whether they went, and what they have got again since.
//!
//! Told of each entry that sends a sink back, and of each move of a marker. A sink goes back once for each such entry, never forward, and only
//! under a token that is newer (INV-3, INV-4); what it got before it gets again, and no more often than the log says. A table that somebody
//! restored is as it was, its notes included. Failure: as in `ledger.rs`.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::{Epoch, Seq, SinkIndex, Token};
use millstream_common::log::rewind::SinkRewind;
use millstream_sinks::sink::Deliverer;

use super::ledger::{Chain, Ledger, chain};
use crate::workload::Again;

/// What is known of the sinks of one life that were sent back.
#[derive(Default)]
pub(crate) struct WayBack {
    /// Each time that one was, by the position of the entry.
    told: BTreeMap<Seq, (SinkIndex, Epoch)>,
    followed: BTreeSet<Seq>,
    /// By sink, the newest entry that it has noted.
    noted: BTreeMap<String, Seq>,
    /// By sink, from where to where it got epochs once more.
    again: BTreeMap<String, Vec<(Epoch, Epoch)>>,
}

/// What a sink says of itself in its own marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) incarnation: String,
    pub(crate) epoch: Epoch,
    /// The last rewind that it has followed.
    pub(crate) rewound: Seq,
    /// Whose marker it is.
    pub(crate) token: Token,
}

impl Chain {
    /// The log sends a sink back; what is wrong with that.
    pub(super) fn sent_back(&mut self, at: Seq, sink: SinkIndex, to: Epoch) -> Option<String> {
        let kept_from = self.progress.retained_from;
        // Not where what it would need is forgotten.
        if !self.progress.rewind_sink(sink, to, at) {
            return None;
        }
        self.way_back.told.insert(at, (sink, to));
        (to < kept_from).then(|| {
            format!(
                "sink {sink} is sent back to {to}, and everything up to {kept_from} is forgotten"
            )
        })
    }

    /// A sink that was sent back and did not go.
    pub(crate) fn stayed(&self) -> Option<String> {
        // Of several the last counts.
        let told = self.way_back.told.iter();
        let last: BTreeMap<&SinkIndex, (&Seq, &Epoch)> =
            told.map(|(at, (sink, to))| (sink, (at, to))).collect();
        let mut last = last.into_iter();
        let open = last.find(|(_, (at, _))| !self.way_back.followed.contains(at));
        open.map(|(sink, (_, to))| format!("sink {sink} was to go back to {to}"))
    }

    /// A sink goes back from what it held; what is wrong with that.
    fn goes_back(&mut self, sink: &str, at: Seq, to: Epoch, token: Token) -> Option<String> {
        let held = self.markers.insert(sink.to_owned(), to);
        let held = held.unwrap_or_default();
        let told = self.way_back.told.get(&at);
        let is_told = told.is_some_and(|(_, told)| to <= *told) && token.0 > at.0;
        let is_first = self.way_back.followed.insert(at);
        self.way_back.noted.insert(sink.to_owned(), at);
        if to < held {
            let again = self.way_back.again.entry(sink.to_owned()).or_default();
            again.push((to, held));
        }
        match (is_told, is_first) {
            (true, true) if to <= held => None,
            (true, true) => Some(format!("sink {sink} goes back from {held} to {to}")),
            (true, false) => Some(format!("sink {sink} goes back to {to} a second time")),
            (false, _) => Some(format!(
                "sink {sink} goes back to {to}, and the log does not"
            )),
        }
    }
}

impl Ledger {
    /// A table has moved its marker back to `to`, as its deliverer was told.
    pub(crate) fn went_back(
        &mut self,
        table: &str,
        deliverer: &Deliverer,
        rewind: SinkRewind,
        to: Epoch,
    ) {
        let chain = chain(&mut self.chains, &deliverer.job, deliverer.incarnation);
        let wrong = chain.goes_back(table, rewind.at, to, deliverer.token);
        self.moved.insert(table.to_owned());
        if let Some(wrong) = wrong {
            self.violated("INV-3", wrong);
        }
    }

    /// A sink that keeps its marker in a place of its own says what it holds.
    pub(crate) fn says(&mut self, sink: &str, key: &str, said: &Said) {
        let chain = self.chains.entry(key.to_owned()).or_default();
        let noted = chain.way_back.noted.get(sink).copied();
        if said.rewound > noted.unwrap_or_default() {
            let wrong = chain.goes_back(sink, said.rewound, said.epoch, said.token);
            self.moved.insert(sink.to_owned());
            if let Some(wrong) = wrong {
                self.violated("INV-3", wrong);
            }
            return;
        }
        if chain.markers.get(sink) != Some(&said.epoch) {
            self.check_paused(sink, key, said.token);
        }
        self.holds(sink, key, said.epoch);
    }

    /// Somebody has restored a table, and what stands beside it, as of `to`.
    pub(crate) fn restored(&mut self, table: &str, to: Epoch, token: Token, rewound: Seq) {
        self.tokens.insert(table.to_owned(), token);
        for chain in self.chains.values_mut() {
            chain.markers.insert(table.to_owned(), to);
            let own = chain.pace.sink(table);
            let told = &chain.way_back.told;
            let is_noted = |at: &Seq| {
                let is_own = told.get(at).is_some_and(|(sink, _)| Some(*sink) == own);
                !is_own || *at <= rewound
            };
            chain.way_back.followed.retain(is_noted);
            chain.way_back.again.remove(table);
        }
        self.moved.insert(table.to_owned());
    }

    /// What a sink of the newest life has got again.
    pub(crate) fn again(&self, sink: &str) -> Vec<Again> {
        let Some(chain) = self.chains.values().last() else {
            return Vec::new();
        };
        let point = |epoch: &Epoch| {
            let progress = chain.history.get(epoch);
            (*epoch, progress.cloned().unwrap_or_default())
        };
        let again = chain.way_back.again.get(sink).into_iter().flatten();
        let again = again.map(|(to, held)| Again {
            to: point(to),
            held: point(held),
        });
        again.collect()
    }

    /// How often the log has sent a sink back.
    pub(crate) fn rewind_count(&self, sink: &str) -> usize {
        self.rewinds(sink).count()
    }

    /// Where the log has sent a sink back to for the last time.
    pub(crate) fn newest_rewind(&self, sink: &str) -> Option<Epoch> {
        self.rewinds(sink).last()
    }

    fn rewinds(&self, sink: &str) -> impl Iterator<Item = Epoch> {
        self.chains.values().flat_map(move |chain| {
            let own = chain.pace.sink(sink);
            let told = chain.way_back.told.values();
            let own = told.filter(move |(sink, _)| Some(*sink) == own);
            own.map(|(_, to)| *to)
        })
    }

    /// The epoch of the log at such a share of those that a sink holds; 0 is before the first.
    pub(crate) fn held_at(&self, sink: &str, share: f64) -> Epoch {
        let Some(chain) = self.chains.values().last() else {
            return Epoch(0);
        };
        let marker = chain.markers.get(sink).copied().unwrap_or_default();
        let held: Vec<&Epoch> = chain
            .epochs
            .iter()
            .filter(|epoch| **epoch <= marker)
            .collect();
        let place = (held.len() as f64 * share) as usize;
        held.get(place.wrapping_sub(1))
            .map_or(Epoch(0), |held| **held)
    }
}
