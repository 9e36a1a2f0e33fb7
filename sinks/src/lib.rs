//! Sinks: deliver committed epochs, each sink at its own pace.
//!
//! A [`sink_actor`](crate) owns one [`sink::Sink`]; it fences, reads the marker, and applies epochs in order.

pub mod sink;
