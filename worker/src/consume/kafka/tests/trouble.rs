//! What is around the reading: lost brokers, lost positions, group offsets, lag, and the end of the thread.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

#[tokio::test]
async fn reading_goes_on_by_itself_after_the_brokers_come_back() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    kafka.cluster.broker_down(-1).expect("down");
    while reader.reader.trouble().is_none() {
        reader.cut().await;
    }
    kafka.cluster.broker_up(-1).expect("up");
    kafka.produce(0, [(2, 0)]);
    reader.read(2).await;
    assert_eq!(reader.ids, vec![1, 2]);
    while reader.reader.trouble().is_some() {
        reader.cut().await;
    }
    reader.close().await;
}

#[tokio::test]
async fn a_position_that_the_partition_does_not_hold_is_an_error_for_the_user() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 1_000)]);
    let error = reader.error().await;
    assert_eq!(error.kind, Kind::User);
    let text = error.to_string();
    assert!(text.contains("read partition clicks-0"), "{text}");
    assert!(
        text.contains("offset 1000 was not in the partition, which holds offsets 0 to 0"),
        "{text}"
    );
    assert!(text.contains("--fresh"), "{text}");
    reader.close().await;
}

#[tokio::test]
async fn a_permission_that_is_taken_away_is_an_error_to_try_again() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    kafka
        .cluster
        .request_errors(RDKafkaApiKey::Fetch, &[denied]);
    let error = reader.error().await;
    assert_eq!(error.kind, Kind::External, "{error}");
    assert!(error.cause.contains("READ and DESCRIBE"), "{error}");
    reader.close().await;
}

#[tokio::test]
async fn records_that_are_gone_end_the_reader_with_their_number() {
    let kafka = Kafka::start(2);
    let (first, _) = kafka.pass_retention(0, 0..10);
    kafka.produce(1, [(100, 0)]);
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits(vec![start_at(0, 1), start_at(1, 0)]);
    let error = reader.error().await;
    assert_eq!(error.kind, Kind::User);
    let text = error.to_string();
    let gone = first - 1;
    assert!(
        text.contains(&format!(
            "begins at {first}, so {gone} records (offsets 1 to {gone}) are gone"
        )),
        "{text}"
    );
    assert!(text.contains("on_gap = 'skip' in source clicks"), "{text}");
    reader.close().await;
}

#[tokio::test]
async fn a_gap_that_may_be_passed_over_is_a_step_of_its_own_and_is_told_from_then_on() {
    let kafka = Kafka::start(1);
    let (first, next) = kafka.pass_retention(0, 0..10);
    let mut plan = kafka.plan();
    if let SourceSpec::Kafka(spec) = &mut plan.spec {
        spec.on_gap = OnGap::Skip;
    }
    let mut reader = kafka.reader_of(&plan);
    reader.reader.add_splits(vec![start_at(0, 1)]);
    reader.read((next - first) as u64).await;
    assert_eq!(reader.ids, (first..next).collect::<Vec<_>>());
    let cut = reader.cut().await;
    let gaps = SplitGaps {
        count: 1,
        positions: (first - 1) as u64,
        from: 1,
        to: first,
    };
    let progress = &cut.splits[&split(0)];
    assert_eq!((progress.position, progress.gaps), (next, Some(gaps)));
    reader.close().await;

    // Whoever goes on from there tells of it too, and of what is gone since.
    let (later, end) = kafka.pass_retention(0, 10..25);
    assert!(later > next);
    let mut reader = kafka.reader_of(&plan);
    reader.reader.add_splits(starts_of(&cut));
    reader.read((end - later) as u64).await;
    let cut = reader.cut().await;
    let gaps = SplitGaps {
        count: 2,
        positions: (first - 1 + later - next) as u64,
        from: next,
        to: later,
    };
    assert_eq!(cut.splits[&split(0)].gaps, Some(gaps));
    reader.close().await;
}

#[tokio::test]
async fn a_bounded_read_whose_end_is_gone_is_at_its_end() {
    let kafka = Kafka::start(1);
    let (first, _) = kafka.pass_retention(0, 0..10);
    let mut plan = kafka.plan();
    if let SourceSpec::Kafka(spec) = &mut plan.spec {
        spec.on_gap = OnGap::Skip;
    }
    let mut reader = kafka.reader_of(&plan);
    reader
        .reader
        .add_splits(vec![start_between(0, 0, first - 1)]);
    let ended = reader.cut_until(0, SplitStatus::Ended).await;
    assert_eq!(ended.position, first - 1);
    assert_eq!(ended.gaps.map(|gaps| gaps.to), Some(first - 1));
    reader.close().await;
}

#[tokio::test]
async fn a_dropped_reader_ends_its_thread_even_if_nobody_takes_its_rows() {
    let kafka = Kafka::start(1);
    kafka.produce(0, (0..50_000).map(|n| (n, n)));
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    reader.close().await;
}

#[tokio::test]
async fn positions_of_the_log_are_shown_to_outside_tools() {
    let kafka = Kafka::start(1);
    kafka.produce(0, (0..5).map(|n| (n, n)));
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(5).await;
    let cut = reader.cut().await;
    reader.reader.committed(&cut.splits);
    let outside: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.cluster.bootstrap_servers())
        .set("group.id", "outside")
        .create()
        .expect("a consumer");
    loop {
        reader.cut().await;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(TOPIC, 0);
        let committed = outside
            .committed_offsets(asked, PATIENCE)
            .expect("offsets of the group");
        if committed.elements()[0].offset() == Offset::Offset(5) {
            break;
        }
    }
}

#[tokio::test]
async fn the_lag_is_what_the_broker_holds_and_the_reader_has_not_read() {
    let kafka = Kafka::start(1);
    kafka.produce(0, (0..5).map(|n| (n, n)));
    let mut reader = kafka.reader();
    assert_eq!(reader.reader.lags().values().sum::<u64>(), 0);
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(5).await;
    while reader.reader.lags().values().max() != Some(&0) {
        kafka.clock.advance(Duration::from_secs(1));
        reader.cut().await;
    }
}

#[tokio::test]
async fn an_unset_reference_is_an_error_for_the_user() {
    let kafka = Kafka::start(1);
    let mut plan = kafka.plan();
    if let SourceSpec::Kafka(spec) = &mut plan.spec {
        spec.brokers = "${MILLSTREAM_TEST_NO_SUCH_VARIABLE}".to_owned();
    }
    let mut reader = kafka.reader_of(&plan);
    let error = reader.error().await;
    assert_eq!(error.kind, Kind::User);
    assert!(error.cause.contains("MILLSTREAM_TEST_NO_SUCH_VARIABLE"));
}
