//! Sinks: deliver committed epochs, each sink at its own pace.
//!
//! In the order of the path: [`sink_actor`] is told of committed epochs, [`delivery`] decides what run is due,
//! [`segment_rows`] reads its rows, some of them as a [`row_group`], a [`sink::Sink`] applies it together with its marker. What it refuses goes through
//! [`refused_rows`] into the log, and is [`left_out`] from then on. [`factory`] makes sinks from
//! their specs; [`conformance`] is what each of them must pass, and [`sent_back`] those with a durable marker.

pub mod sink;

pub mod delivery;
pub mod left_out;
pub mod refused_rows;
pub mod row_group;
pub mod segment_rows;
pub mod sink_actor;
mod waiting;

pub mod blackhole;
pub mod console;
pub mod files;
pub mod kafka;
pub mod postgres;
mod row_json;
mod volatile;

pub mod conformance;
pub mod factory;
pub mod sent_back;
