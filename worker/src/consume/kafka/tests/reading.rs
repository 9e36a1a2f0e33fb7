//! What is read: every record once, from the position given, to the end given, and cuts in between.

use super::*;

#[tokio::test]
async fn every_record_of_every_partition_comes_once_and_in_order() {
    let kafka = Kafka::start(3);
    for partition in 0..3 {
        let first = i64::from(partition) * 10_000;
        kafka.produce(partition, (0..4_000).map(|n| (first + n, n)));
    }
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits((0..3).map(|partition| start_at(partition, 0)).collect());
    reader.read(12_000).await;
    for partition in 0..3 {
        let ids: Vec<i64> = reader
            .ids
            .iter()
            .copied()
            .filter(|id| id / 10_000 == partition)
            .collect();
        let expected: Vec<i64> = (0..4_000).map(|n| partition * 10_000 + n).collect();
        assert_eq!(ids, expected);
    }
    let cut = reader.cut().await;
    assert!(cut.splits.values().all(|split| split.position == 4_000));
}

#[tokio::test]
async fn a_reader_begins_where_the_cut_of_another_was() {
    let kafka = Kafka::start(2);
    for partition in 0..2 {
        let first = i64::from(partition) * 100_000;
        kafka.produce(partition, (0..20_000).map(|n| (first + n, n)));
    }
    let mut first = kafka.reader();
    first
        .reader
        .add_splits(vec![start_at(0, 0), start_at(1, 0)]);
    first.read(1).await;
    let cut = first.cut_with(None, true).await;
    let position: i64 = cut.splits.values().map(|split| split.position).sum();
    assert_eq!(usize::try_from(position), Ok(first.ids.len()));
    let mut second = kafka.reader();
    second.reader.add_splits(starts_of(&cut));
    second.read(40_000 - first.counters.read).await;
    let all: BTreeSet<i64> = first.ids.iter().chain(&second.ids).copied().collect();
    assert_eq!(all.len(), 40_000);
    assert_eq!(first.ids.len() + second.ids.len(), 40_000);
}

#[tokio::test]
async fn a_cut_is_answered_while_nothing_comes_and_without_a_split() {
    let kafka = Kafka::start(1);
    let mut reader = kafka.reader();
    assert!(reader.cut().await.splits.is_empty());
    reader.reader.add_splits(vec![start_at(0, 0)]);
    for _ in 0..10 {
        let cut = reader.cut().await;
        assert_eq!(cut.splits[&split(0)].position, 0);
        assert_eq!(cut.splits[&split(0)].status, SplitStatus::Active);
    }
}

#[tokio::test]
async fn splits_added_while_running_are_read_beside_the_others() {
    let kafka = Kafka::start(2);
    kafka.produce(0, [(1, 0)]);
    kafka.produce(1, [(2, 0), (3, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    reader.reader.add_splits(vec![start_at(1, 1)]);
    reader.read(2).await;
    kafka.produce(0, [(4, 0)]);
    reader.read(3).await;
    assert_eq!(reader.ids, vec![1, 3, 4]);
}

#[tokio::test]
async fn a_bounded_partition_ends_once_and_an_empty_one_at_once() {
    let kafka = Kafka::start(3);
    kafka.produce(0, (0..10).map(|n| (n, n)));
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![
        start_between(0, 0, 6),
        start_between(1, 0, 0),
        start_at(2, 0),
    ]);
    reader.read(6).await;
    let cut = reader.cut().await;
    let status = |cut: &SourceCut, partition| {
        let progress = cut.splits.get(&split(partition));
        progress.map(|progress| (progress.position, progress.status))
    };
    assert_eq!(status(&cut, 0), Some((6, SplitStatus::Ended)));
    assert_eq!(status(&cut, 1), Some((0, SplitStatus::Ended)));
    assert_eq!(status(&cut, 2), Some((0, SplitStatus::Active)));
    let cut = reader.cut().await;
    assert_eq!(cut.splits.len(), 1);
    assert_eq!(reader.ids, (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_without_a_value_is_refused_and_not_lost() {
    let kafka = Kafka::start(1);
    kafka.send(0, None);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(2).await;
    assert_eq!((reader.counters.accepted, reader.counters.rejected), (1, 1));
}
