//! The links between hosts, and which hosts run: overlapping faults are healed only when the last of them is over.
//!
//! Used by `simulation.rs` between two steps. Owns what is cut, frozen or without power; tells turmoil. A crashed process closes its
//! connections as a kernel would, a host without power says nothing. Cannot fail.

use std::collections::BTreeMap;

use turmoil::Sim;

/// What is wrong with the network at present.
#[derive(Debug, Default)]
pub(crate) struct Links {
    hosts: Vec<&'static str>,
    /// How often each is frozen.
    frozen: BTreeMap<&'static str, u32>,
    /// How often each way is cut.
    cuts: BTreeMap<(&'static str, &'static str), u32>,
    without_power: Vec<&'static str>,
}

impl Links {
    /// All whole.
    pub(crate) fn new(hosts: impl Iterator<Item = &'static str>) -> Self {
        Self {
            hosts: hosts.collect(),
            ..Self::default()
        }
    }

    fn others(&self, host: &str) -> Vec<&'static str> {
        let hosts = self.hosts.iter().copied();
        hosts.filter(|other| *other != host).collect()
    }

    /// The process ends, if it runs.
    pub(crate) fn kill(&mut self, sim: &mut Sim<'_>, host: &'static str) {
        if sim.is_host_running(host) {
            sim.crash(host);
        }
    }

    /// The machine is gone, if it runs.
    pub(crate) fn cut_power(&mut self, sim: &mut Sim<'_>, host: &'static str) {
        if sim.is_host_running(host) {
            for other in self.others(host) {
                sim.partition(host, other);
            }
            self.without_power.push(host);
            sim.crash(host);
        }
    }

    /// The process comes back, if it does not run.
    pub(crate) fn start(&mut self, sim: &mut Sim<'_>, host: &'static str) {
        self.without_power.retain(|other| *other != host);
        for other in self.others(host) {
            self.mend_way(sim, host, other);
            self.mend_way(sim, other, host);
        }
        if !sim.is_host_running(host) {
            sim.bounce(host);
        }
    }

    /// Holds all messages from and to the host.
    pub(crate) fn freeze(&mut self, sim: &mut Sim<'_>, host: &'static str) {
        *self.frozen.entry(host).or_default() += 1;
        for other in self.others(host) {
            sim.hold(host, other);
        }
    }

    /// Lets the held messages go.
    pub(crate) fn thaw(&mut self, sim: &mut Sim<'_>, host: &'static str) {
        let is_frozen = |links: &Self, host| links.frozen.get(host).is_some_and(|count| *count > 0);
        if let Some(count) = self.frozen.get_mut(host) {
            *count -= 1;
        }
        for other in self.others(host) {
            if !is_frozen(self, host) && !is_frozen(self, other) {
                sim.release(host, other);
            }
        }
    }

    /// Drops all messages of one direction.
    pub(crate) fn cut(&mut self, sim: &mut Sim<'_>, from: &'static str, to: &'static str) {
        *self.cuts.entry((from, to)).or_default() += 1;
        sim.partition_oneway(from, to);
    }

    /// Ends one cut.
    pub(crate) fn mend(&mut self, sim: &mut Sim<'_>, from: &'static str, to: &'static str) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count -= 1;
        }
        self.mend_way(sim, from, to);
    }

    fn mend_way(&self, sim: &mut Sim<'_>, from: &'static str, to: &'static str) {
        let is_cut = self.cuts.get(&(from, to)).is_some_and(|count| *count > 0);
        let is_dark = self.without_power.contains(&from) || self.without_power.contains(&to);
        // A plan freezes or cuts, never both, and a repair would lose what is held.
        let may_hold = !self.frozen.is_empty();
        if !may_hold && !is_cut && !is_dark {
            sim.repair_oneway(from, to);
        }
    }
}
