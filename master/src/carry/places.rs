//! Where a source reads and a sink writes: what positions and markers are of.
//!
//! Called by `refuse.rs`. Options that say how (batch sizes, formats, credentials in properties) are not in it. Pure.

use millstream_common::plan::{SinkSpec, SourceSpec};

/// Each part of the place, by the name of its option.
pub(super) type Place = Vec<(&'static str, String)>;

/// What positions in a source are positions of.
pub(super) fn of_source(spec: &SourceSpec) -> Place {
    match spec {
        SourceSpec::Kafka(kafka) => vec![
            ("connector", "kafka".to_owned()),
            ("topic", kafka.topic.clone()),
        ],
        SourceSpec::Files(files) => vec![
            ("connector", "files".to_owned()),
            ("path", files.path.clone()),
        ],
        SourceSpec::Datagen(datagen) => vec![
            ("connector", "datagen".to_owned()),
            ("seed", datagen.seed.to_string()),
        ],
    }
}

/// Where a sink's rows and marker are.
pub(super) fn of_sink(spec: &SinkSpec) -> Place {
    match spec {
        SinkSpec::Postgres(postgres) => vec![
            ("connector", "postgres".to_owned()),
            ("url", postgres.url.clone()),
            ("table", postgres.table.clone()),
        ],
        SinkSpec::Files(files) => vec![
            ("connector", "files".to_owned()),
            ("path", files.path.clone()),
        ],
        SinkSpec::Kafka(kafka) => vec![
            ("connector", "kafka".to_owned()),
            ("topic", kafka.topic.clone()),
            ("progress_topic", kafka.progress_topic.clone()),
        ],
        SinkSpec::Console(_) => vec![("connector", "console".to_owned())],
        SinkSpec::Blackhole => vec![("connector", "blackhole".to_owned())],
    }
}

/// The first option in which two places differ, as text.
pub(super) fn difference(old: &Place, new: &Place) -> Option<String> {
    let pairs = old.iter().zip(new);
    let differing = pairs.into_iter().find(|(old, new)| old != new)?;
    let ((name, was), (_, is)) = differing;
    Some(format!("{name} was {was:?} and is {is:?}"))
}
