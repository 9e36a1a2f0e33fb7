//! Watermarks of partitions that are silent, wake, or lag behind the others.

use super::*;

/// More than lies between two answers of a broker.
const ANSWER_AGE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_partition_that_wakes_brings_no_row_older_than_what_owners_act_on() {
    let kafka = Kafka::start(2);
    kafka.produce(0, [(1, 10 * MINUTE_MS)]);
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits(vec![start_at(0, 0), start_at(1, 0)]);
    reader.read(1).await;
    kafka.clock.advance(IDLE_TIMEOUT + ANSWER_AGE);
    reader.cut_until(1, SplitStatus::Idle).await;
    let owners = EventTime(9 * MINUTE_MS * 1_000);
    reader.cut_with(Some(owners), false).await;
    kafka.produce(1, [(2, 8 * MINUTE_MS), (3, 9 * MINUTE_MS)]);
    reader.read(3).await;
    assert_eq!(reader.ids, vec![1, 3]);
    assert_eq!(reader.counters.rejected, 1);
    let woken = reader.cut_until(1, SplitStatus::Active).await;
    assert_eq!(woken.watermark, Some(owners));
}

#[tokio::test]
async fn a_partition_is_not_idle_before_its_timeout() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    kafka.clock.advance(IDLE_TIMEOUT - Duration::from_millis(1));
    for _ in 0..10 {
        assert_eq!(
            reader.cut().await.splits[&split(0)].status,
            SplitStatus::Active
        );
    }
    kafka.clock.advance(ANSWER_AGE);
    reader.cut_until(0, SplitStatus::Idle).await;
}

#[tokio::test]
async fn a_partition_minutes_behind_the_others_loses_no_row() {
    let kafka = Kafka::start(2);
    kafka.produce(0, (0..100).map(|n| (n, n * MINUTE_MS)));
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits(vec![start_at(0, 0), start_at(1, 0)]);
    reader.read(100).await;
    reader.cut().await;
    kafka.produce(1, (0..100).map(|n| (1_000 + n, n * MINUTE_MS)));
    reader.read(200).await;
    assert_eq!(reader.counters.accepted, 200);
}
