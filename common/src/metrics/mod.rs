//! Figures of a process as OpenMetrics text.
//!
//! A process gathers what its parts count anyway into an [`Exposition`] when it is asked (`http.rs`); nothing is registered and
//! nothing is kept here, so a figure costs nothing while nobody looks. Names, units and labels stand in [`catalogue`]. Labels are
//! bounded: jobs, and what their plans name; partitions, never files. Cannot fail.

pub mod catalogue;
mod histogram;
mod metric;
mod process;

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use self::catalogue::METRICS;
pub use self::histogram::Histogram;
pub use self::metric::{Kind, Metric};
use crate::trace::Tracer;

/// What a scrape is told it gets.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    /// By name of their metric: a scrape of a thousand jobs has a sample in each hundreds of times.
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

#[derive(Debug)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram(Histogram),
}

impl Exposition {
    /// With what every process tells of itself.
    pub fn of_process(role: &str) -> Self {
        let mut exposition = Self::default();
        let version = env!("CARGO_PKG_VERSION");
        exposition.set(&catalogue::BUILD, &[version, role], 1.0);
        let memory = process::resident_bytes().map(|bytes| bytes as f64);
        exposition.set_known(&catalogue::PROCESS_MEMORY, &[], memory);
        exposition
    }

    /// Adds what became of the process's spans, if any are wanted.
    pub fn spans(&mut self, tracer: &dyn Tracer) {
        let Some(counts) = tracer.counts() else {
            return;
        };
        for (outcome, count) in [
            ("exported", counts.exported),
            ("failed", counts.failed),
            ("dropped", counts.dropped),
        ] {
            self.count(&catalogue::TRACE_SPANS, &[outcome], count);
        }
    }

    /// Adds a sample; `labels` are the values of the metric's labels, in their order.
    pub fn set(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Number(value));
    }

    /// Adds a count.
    pub fn count(&mut self, metric: &'static Metric, labels: &[&str], count: u64) {
        self.set(metric, labels, count as f64);
    }

    /// Adds a sample, if it is known.
    pub fn set_known(&mut self, metric: &'static Metric, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.set(metric, labels, value);
        }
    }

    /// Adds a distribution.
    pub fn histogram(&mut self, metric: &'static Metric, labels: &[&str], histogram: &Histogram) {
        self.add(metric, labels, Value::Histogram(histogram.clone()));
    }

    fn add(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let names = metric.labels.iter().copied();
        let labels = names.zip(labels.iter().map(|&label| label.to_owned()));
        let samples = self.samples.entry(metric.name).or_default();
        samples.push(Sample {
            labels: labels.collect(),
            value,
        });
    }

    /// With what `other` tells besides, for two roles in one process: of what both tell, such as its memory, this one counts.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for (metric, samples) in other.samples {
            let known = self.samples.entry(metric).or_default();
            for sample in samples {
                if !known.iter().any(|told| told.labels == sample.labels) {
                    known.push(sample);
                }
            }
        }
        self
    }

    /// The text of the scrape, in the order of the catalogue.
    pub fn encode(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Only a writer can fail, and a string does not.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in METRICS {
            let Some(samples) = self.samples.get(metric.name) else {
                continue;
            };
            let unit = metric.unit.map(unit);
            let encoder = encoder.encode_descriptor(
                metric.stem(),
                metric.help,
                unit.as_ref(),
                kind(metric.kind),
            );
            let mut encoder = encoder?;
            for sample in samples {
                sample.encode(metric.kind, &mut encoder)?;
            }
        }
        Ok(())
    }
}

impl Sample {
    fn encode(&self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        if kind == Kind::Info {
            return encoder.encode_info(&self.labels);
        }
        if self.labels.is_empty() {
            return self.encode_value(kind, encoder);
        }
        self.encode_value(kind, &mut encoder.encode_family(&self.labels)?)
    }

    fn encode_value(&self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (&self.value, kind) {
            (Value::Number(value), Kind::Counter) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            (Value::Number(value), _) => encoder.encode_gauge(value),
            (Value::Histogram(histogram), _) => encoder.encode_histogram::<NoLabelSet>(
                histogram.sum,
                histogram.count(),
                &histogram.buckets(),
                None,
            ),
        }
    }
}

fn unit(unit: &'static str) -> Unit {
    match unit {
        "seconds" => Unit::Seconds,
        "bytes" => Unit::Bytes,
        other => Unit::Other(other.to_owned()),
    }
}

fn kind(kind: Kind) -> MetricType {
    match kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_roles_of_one_process_tell_what_both_know_once() {
        let role = |role: &str, memory, bytes| {
            let mut exposition = Exposition::default();
            exposition.set(&catalogue::BUILD, &["0.1.0", role], 1.0);
            exposition.set(&catalogue::PROCESS_MEMORY, &[], memory);
            exposition.count(&catalogue::WORKER_BYTES, &[role], bytes);
            exposition
        };
        let text = role("master", 7.0, 1).with(role("worker", 8.0, 2)).encode();
        for line in [
            "millstream_build_info{version=\"0.1.0\",role=\"master\"} 1",
            "millstream_build_info{version=\"0.1.0\",role=\"worker\"} 1",
            "millstream_process_resident_memory_bytes 7.0",
            "millstream_worker_read_bytes_total{job=\"worker\"} 2.0",
        ] {
            assert!(text.lines().any(|each| each == line), "{line}\n{text}");
        }
        assert!(!text.contains("memory_bytes 8.0"), "{text}");
    }

    #[test]
    fn samples_of_a_metric_stand_together_under_its_help_type_and_unit() {
        let mut exposition = Exposition::default();
        exposition.count(&catalogue::SOURCE_BYTES, &["j", "clicks"], 7);
        exposition.set(&catalogue::BUILD, &["0.1.0", "master"], 1.0);
        exposition.count(&catalogue::SOURCE_BYTES, &["j", "other"], 0);
        let mut durations = Histogram::default();
        durations.observe(0.02);
        let labels = ["j", "collect"];
        exposition.histogram(&catalogue::EPOCH_DURATION, &labels, &durations);
        let text = exposition.encode();
        for line in [
            "# TYPE millstream_build info",
            "millstream_build_info{version=\"0.1.0\",role=\"master\"} 1",
            "# UNIT millstream_source_read_bytes bytes",
            "millstream_source_read_bytes_total{job=\"j\",source=\"clicks\"} 7.0",
            "millstream_epoch_duration_seconds_count{job=\"j\",phase=\"collect\"} 1",
        ] {
            assert!(text.lines().any(|each| each == line), "{line}\n{text}");
        }
        assert_eq!(
            text.matches("# TYPE millstream_source_read_bytes").count(),
            1
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
