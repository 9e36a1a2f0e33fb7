//! How a deliverer takes a Kafka sink over: newer ones are left alone, older ones fenced, then the marker is read.
//!
//! Used by `mod.rs`. The order: both topics fit; no newer deliverer was here; a producer, whose start fences every older one and
//! ends their transactions; a fence record; the progress topic read up to it, so that the marker then is decided; a rewind, if the sink
//! has not followed it yet. Failure:
//! a topic that does not fit is refused with what to do; a fence record that does not come is tried again.

use std::time::Duration;

use millstream_common::ids::{Epoch, nonce};
use millstream_common::log::rewind::SinkRewind;
use millstream_common::mutant::{self, Mutant};
use millstream_common::secret;

use super::cluster::{ClusterError, CommittedReader, ProducerSettings, Records, TopicShape};
use super::progress::{PARTITION_COUNT, Seen, Slot};
use super::{Names, Open, Target, sink_error};
use crate::sink::SinkError;

/// What Kafka takes where neither the user nor the topic says otherwise.
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// What a batch of one record needs beside the record.
const BATCH_OVERHEAD_BYTES: usize = 128;
/// The user's own bound on the size of a record.
const SIZE_PROPERTY: &str = "message.max.bytes";
/// How often a new progress topic is looked for.
const LOOKS_MAX: usize = 50;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a fence may take beyond what older transactions may.
const FENCE_MARGIN: Duration = Duration::from_secs(15);

/// How far a look at the progress topic goes.
#[derive(Clone, Copy)]
enum Until {
    /// What the broker says is the end: enough to see who was here.
    End,
    /// Our own fence: everything older is decided.
    Fence,
}

impl Target {
    /// Takes the sink over.
    pub(super) async fn open(&self) -> Result<Open, SinkError> {
        let what = self.what("fence");
        let failed = |error| sink_error(&what, error);
        let names = self.names()?;
        let message_bytes_max = self.check_topics(&names).await?;
        let nonce = nonce();
        let mut seen = Seen::awaiting(&nonce);
        let reader = self.reader(&names).await;
        let mut reader = reader.map_err(failed)?;
        self.look(&mut *reader, &names, &mut seen, Until::End)
            .await?;
        let early = seen.epoch;
        let settings = ProducerSettings {
            transactional_id: Slot::transactional_id(&self.deliverer),
            message_bytes_max,
        };
        let producer = self.cluster.producer(&self.spec, &settings).await;
        let mut producer = producer.map_err(failed)?;
        let (key, value) = names.slot.fence(&self.deliverer, &nonce);
        let fence = Records::one(&names.progress_topic, names.slot.partition, key, &value);
        producer.begin().await.map_err(failed)?;
        producer.send(fence).await.map_err(failed)?;
        producer.commit().await.map_err(failed)?;
        self.look(&mut *reader, &names, &mut seen, Until::Fence)
            .await?;
        let marker = match mutant::is(Mutant::ReadMarkerBeforeFence) {
            true => early,
            false => seen.epoch,
        };
        let mut open = Open {
            producer,
            names,
            marker: marker.unwrap_or(Epoch(0)),
            rewound: seen.rewound,
            message_bytes_max,
        };
        if let Some(rewind) = self.deliverer.rewind
            && rewind.at > open.rewound
        {
            self.go_back(&mut open, rewind).await.map_err(failed)?;
        }
        Ok(open)
    }

    /// Moves the marker back, never forward, and notes that, in one record; the producer has fenced every older one (INV-3, INV-4). A
    /// progress topic that was made anew, or restored, may hold less than the epoch it is sent back to.
    async fn go_back(&self, open: &mut Open, rewind: SinkRewind) -> Result<(), ClusterError> {
        let slot = &open.names.slot;
        let to = match mutant::is(Mutant::RewindForward) {
            true => rewind.to,
            false => rewind.to.min(open.marker),
        };
        let at = match mutant::is(Mutant::ForgetRewind) {
            true => open.rewound,
            false => rewind.at,
        };
        let (key, value) = slot.marker(&self.deliverer, to, at);
        let record = Records::one(&open.names.progress_topic, slot.partition, key, &value);
        open.producer.begin().await?;
        open.producer.send(record).await?;
        open.producer.commit().await?;
        (open.marker, open.rewound) = (to, at);
        Ok(())
    }

    fn names(&self) -> Result<Names, SinkError> {
        let resolve = |text: &str| {
            let resolved = secret::resolve(text);
            let resolved =
                resolved.map_err(|error| SinkError::refused(self.what("name"), error))?;
            Ok(resolved.expose().to_owned())
        };
        Ok(Names {
            topic: resolve(&self.spec.topic)?,
            progress_topic: resolve(&self.spec.progress_topic)?,
            slot: Slot::of(&self.deliverer),
        })
    }

    /// Both topics must be as the protocol needs them; the progress topic is made if it is missing. The
    /// size of the largest record comes back.
    async fn check_topics(&self, names: &Names) -> Result<usize, SinkError> {
        let what = self.what("write to");
        let (topic, mut progress) = self.ask(names).await?;
        let Some(topic) = topic else {
            return Err(SinkError::refused(&what, missing_topic(&names.topic)));
        };
        if progress.is_none() {
            progress = Some(self.create_progress(names).await?);
        }
        if let Some(shape) = &progress {
            let checked = check_progress(&names.progress_topic, shape);
            checked.map_err(|cause| SinkError::refused(&what, cause))?;
        }
        let given = self.spec.properties.get(SIZE_PROPERTY);
        let given = given.and_then(|size| size.trim().parse().ok());
        let of_topic = topic.message_bytes_max.unwrap_or(MESSAGE_BYTES_MAX);
        Ok(given.unwrap_or(of_topic.saturating_sub(BATCH_OVERHEAD_BYTES)))
    }

    /// The topic of the rows and that of the marker.
    async fn ask(
        &self,
        names: &Names,
    ) -> Result<(Option<TopicShape>, Option<TopicShape>), SinkError> {
        let asked = [names.topic.as_str(), names.progress_topic.as_str()];
        let shapes = self.cluster.topics(&self.spec, &asked).await;
        let mut shapes = shapes
            .map_err(|error| sink_error(&self.what("ask for"), error))?
            .into_iter();
        Ok((shapes.next().flatten(), shapes.next().flatten()))
    }

    /// A broker may say that a topic is made before it can say what it is like.
    async fn create_progress(&self, names: &Names) -> Result<TopicShape, SinkError> {
        let name = &names.progress_topic;
        let made = self
            .cluster
            .create_compacted(&self.spec, name, PARTITION_COUNT);
        let made = made.await;
        made.map_err(|error| sink_error(&self.what("write to"), error))?;
        for _ in 0..LOOKS_MAX {
            if let (_, Some(shape)) = self.ask(names).await? {
                return Ok(shape);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let cause = format!("topic {name} was created and is not there yet");
        Err(SinkError::unavailable(self.what("write to"), cause))
    }

    async fn reader(&self, names: &Names) -> Result<Box<dyn CommittedReader>, ClusterError> {
        let (topic, partition) = (&names.progress_topic, names.slot.partition);
        self.cluster.reader(&self.spec, topic, partition).await
    }

    /// Reads on, and says so if a newer deliverer was here.
    async fn look(
        &self,
        reader: &mut dyn CommittedReader,
        names: &Names,
        seen: &mut Seen,
        until: Until,
    ) -> Result<(), SinkError> {
        let what = format!("read the marker in topic {}", names.progress_topic);
        let reading = async {
            loop {
                let read = reader.next().await;
                let read = read.map_err(|error| sink_error(&what, error))?;
                for record in &read.records {
                    let taken = seen.take(&names.slot, record);
                    taken.map_err(|cause| SinkError::refused(&what, cause))?;
                }
                let is_enough = match until {
                    Until::End => read.is_end,
                    Until::Fence => seen.has_awaited(),
                };
                if is_enough {
                    return Ok(());
                }
            }
        };
        let patience = Duration::from_millis(self.spec.transaction_timeout_ms) + FENCE_MARGIN;
        let read = tokio::time::timeout(patience, reading).await;
        read.unwrap_or_else(|_| {
            let cause = "an older transaction of another producer is not ended yet";
            Err(SinkError::unavailable(&what, cause))
        })?;
        match seen.newer_than(self.deliverer.token) {
            Some(newer) => Err(SinkError::Fenced { newer }),
            None => Ok(()),
        }
    }

    /// Somebody has made a producer after ours: who? A newer deliverer ends this one; an older one has
    /// found out by now that it is one, and this one comes back.
    pub(super) async fn explain_fence(&self, names: &Names) -> SinkError {
        let what = self.what("write to");
        let mut reader = match self.reader(names).await {
            Ok(reader) => reader,
            Err(error) => return sink_error(&what, error),
        };
        let mut seen = Seen::default();
        let looked = self.look(&mut *reader, names, &mut seen, Until::End).await;
        match looked {
            Err(error) => error,
            Ok(()) => sink_error(&what, ClusterError::Fenced),
        }
    }
}

fn missing_topic(topic: &str) -> String {
    format!(
        "there is no such topic; create it: kafka-topics --create --topic {topic} --partitions 4"
    )
}

/// Markers must last, and stay where they are.
fn check_progress(name: &str, shape: &TopicShape) -> Result<(), String> {
    let create = format!(
        "kafka-topics --create --topic {name} --partitions {PARTITION_COUNT} --config cleanup.policy=compact"
    );
    if shape.partition_count != PARTITION_COUNT {
        let found = shape.partition_count;
        return Err(format!(
            "progress topic {name} has {found} partitions, not {PARTITION_COUNT}: name another progress_topic, or {create}"
        ));
    }
    match shape.cleanup_policy.as_deref() {
        None | Some("compact") => Ok(()),
        Some(other) => Err(format!(
            "progress topic {name} has cleanup.policy={other}, which would forget what the sink holds: set it to compact"
        )),
    }
}
