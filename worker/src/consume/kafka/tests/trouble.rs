//! What is around the reading: lost brokers, lost positions, group offsets, lag, and the end of the thread.

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
    assert!(text.contains("--fresh"), "{text}");
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
