//! The options of a `kafka` sink: what they become, and what is refused.

use millstream_common::plan::connector::{KafkaPartitioner, KafkaSinkSpec};
use millstream_common::plan::{Emit, SinkSpec};

use super::*;

const JOB: &str = "CREATE SOURCE clicks (id TEXT NOT NULL, note TEXT, ts TIMESTAMP NOT NULL, \
WATERMARK FOR ts AS ts - INTERVAL '1 minute') WITH (connector = 'kafka', brokers = 'b', topic = 't');\n\
CREATE VIEW v AS SELECT window_start, id, count(*) AS n \
FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, id;\n";

fn job(relation: &str, options: &str) -> String {
    format!(
        "{JOB}CREATE SINK s FROM {relation} WITH (connector = 'kafka', brokers = '${{B:-b}}', topic = 'out'{options});"
    )
}

fn sink(relation: &str, options: &str) -> (KafkaSinkSpec, Emit) {
    let plan = plan(&job(relation, options)).plan;
    let sink = &plan.sinks[0];
    match &sink.spec {
        SinkSpec::Kafka(spec) => (spec.clone(), plan.outputs[sink.output.index()].emit),
        other => panic!("{other:?}"),
    }
}

/// The message and the hint of the only problem.
fn refused(relation: &str, options: &str) -> (String, String) {
    let mut problems = problems_of(&job(relation, options));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    (problem.message, problem.hint.unwrap_or_default())
}

#[test]
fn a_sink_without_options_appends_records_without_keys() {
    let (spec, emit) = sink("clicks", "");
    assert_eq!(spec.brokers, "${B:-b}");
    assert_eq!((spec.key.len(), spec.upsert), (0, false));
    assert_eq!(spec.partitioner, KafkaPartitioner::Murmur2);
    assert_eq!(spec.transaction_timeout_ms, 60_000);
    assert_eq!(spec.progress_topic, "__millstream_progress");
    assert_eq!(emit, Emit::Final);
}

#[test]
fn a_primary_key_makes_upserts_and_a_key_does_not() {
    let (spec, emit) = sink("v", ", primary_key = 'window_start,id'");
    assert_eq!(spec.key, ["window_start", "id"]);
    assert!(spec.upsert);
    assert_eq!(emit, Emit::Changes { interval_ms: 0 });
    let (spec, emit) = sink("v", ", key = 'id'");
    assert!(!spec.upsert);
    assert_eq!(emit, Emit::Final);
}

#[test]
fn headers_partitioner_timeout_and_properties_are_taken() {
    let options = ", headers = 'note', partitioner = 'crc32', transaction_timeout = '20 s', format = 'json', \
                   \"kafka.compression.type\" = 'zstd', \"kafka.client.id\" = 'mine'";
    let (spec, _) = sink("clicks", options);
    assert_eq!(spec.headers, ["note"]);
    assert_eq!(spec.partitioner, KafkaPartitioner::Crc32);
    assert_eq!(spec.transaction_timeout_ms, 20_000);
    assert_eq!(spec.properties["compression.type"], "zstd");
    assert_eq!(spec.properties["client.id"], "mine");
}

#[test]
fn what_a_record_cannot_be_is_refused_with_the_line_to_write() {
    for (relation, options, message, hint) in [
        (
            "v",
            ", key = 'idd'",
            "unknown column idd",
            "did you mean id?",
        ),
        (
            "v",
            ", headers = 'ids'",
            "unknown column ids",
            "did you mean id?",
        ),
        (
            "v",
            ", key = 'id', emit = 'changes'",
            "changes need a primary_key, to know which record changes",
            "add primary_key = 'window_start,id'",
        ),
        (
            "clicks",
            ", primary_key = 'note'",
            "primary_key column note may be NULL",
            "NOT NULL",
        ),
        (
            "clicks",
            ", headers = 'id,note,ts'",
            "every column is a header, so records would have no value",
            "leave out",
        ),
        (
            "clicks",
            ", key = 'id', primary_key = 'id'",
            "the key of a record is its primary_key",
            "leave key out",
        ),
        (
            "clicks",
            ", transaction_timeout = '10 ms'",
            "option transaction_timeout must be at least a second",
            "",
        ),
        (
            "clicks",
            ", \"kafka.acks\" = '1'",
            "kafka property acks cannot be set",
            "",
        ),
    ] {
        let (found, found_hint) = refused(relation, options);
        assert_eq!(found, message, "{options}");
        assert!(found_hint.contains(hint), "{options}: {found_hint}");
    }
}
