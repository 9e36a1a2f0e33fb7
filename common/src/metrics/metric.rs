//! What one metric is: its name, kind, unit, labels and meaning.
//!
//! Listed in `catalogue.rs`. Pure.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, and begins anew with the process or the life of the job.
    Counter,
    /// A distribution.
    Histogram,
    /// Labels without a value.
    Info,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// With its unit, without the suffix of its kind.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The base unit that its name ends with.
    pub unit: Option<&'static str>,
    /// In order.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

impl Metric {
    /// The name without the unit.
    pub(super) fn stem(&self) -> &'static str {
        let stem = self.unit.and_then(|unit| self.name.strip_suffix(unit));
        stem.map_or(self.name, |stem| stem.trim_end_matches('_'))
    }

    /// The name as it stands in queries.
    pub fn exposed(&self) -> String {
        match self.kind {
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
            Kind::Counter => format!("{}_total", self.name),
            Kind::Info => format!("{}_info", self.name),
        }
    }
}
