//! Makes sinks from what `WITH (...)` says.
//!
//! Called by the worker for each sink actor, through [`factory`]. Connects to nothing. Failure: a spec that cannot
//! work with the output's columns is refused.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_common::blocking::BlockingRef;
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::SinkSpec;

use crate::blackhole::BlackholeSink;
use crate::console::{ConsoleOutput, ConsoleSink};
use crate::files::FilesSink;
use crate::kafka::{ClusterRef, KafkaSink};
use crate::postgres::PostgresSink;
use crate::sink::{Deliverer, Sink, SinkError};
use crate::sink_actor::SinkFactory;

/// All that a sink is made from.
#[derive(Clone)]
pub struct SinkSetup {
    /// The connector with its options.
    pub spec: SinkSpec,
    /// Who delivers.
    pub deliverer: Deliverer,
    /// Columns of the output, without `_op`.
    pub schema: SchemaRef,
    /// What becomes of refused rows. A sink that reads dead letters must get `Fail`: it never makes any.
    pub on_violation: OnViolation,
    /// Runs what blocks.
    pub blocking: BlockingRef,
    /// The clusters that Kafka sinks write to.
    pub kafka: ClusterRef,
    /// Where a console sink writes.
    pub console: ConsoleOutput,
}

/// A sink that nothing is connected to yet.
pub fn build(setup: &SinkSetup) -> Result<Box<dyn Sink>, SinkError> {
    let deliverer = setup.deliverer.clone();
    let schema = setup.schema.clone();
    let blocking = setup.blocking.clone();
    Ok(match &setup.spec {
        SinkSpec::Postgres(spec) => Box::new(PostgresSink::new(
            spec.clone(),
            deliverer,
            schema,
            setup.on_violation,
            blocking,
        )),
        SinkSpec::Files(spec) => Box::new(FilesSink::new(
            spec.clone(),
            deliverer,
            schema,
            setup.on_violation,
            blocking,
        )?),
        SinkSpec::Kafka(spec) => Box::new(KafkaSink::new(
            spec.clone(),
            deliverer,
            schema,
            setup.on_violation,
            setup.kafka.clone(),
        )?),
        SinkSpec::Console(spec) => {
            Box::new(ConsoleSink::new(spec, setup.console.clone(), blocking))
        }
        SinkSpec::Blackhole => Box::new(BlackholeSink::default()),
    })
}

/// [`build`] as often as it is asked for.
pub fn factory(setup: SinkSetup) -> SinkFactory {
    Arc::new(move || build(&setup))
}
