//! Late rows: decided once, row by row, by the watermark of the row's own split.

use millstream_common::time::EventTime;

use super::*;

fn plan() -> SourcePlan {
    let mut plan = source();
    plan.columns = vec![column("at", timestamp(), true)];
    plan.format = FormatSpec::Json {
        timestamp_format: TimestampFormat::UnixS,
        record_bytes_max: 1 << 20,
    };
    plan.watermark = watermark(0);
    plan
}

fn split(moves: WatermarkMoves, watermark: Option<i64>) -> OpenSplit {
    OpenSplit {
        origin: "clicks-0".to_owned(),
        partition: None,
        watermark: watermark.map(seconds),
        moves,
    }
}

fn seconds(seconds: i64) -> EventTime {
    EventTime(seconds * 1_000_000)
}

fn payloads(times: &[i64]) -> Vec<String> {
    times
        .iter()
        .map(|time| format!("{{\"at\":{time}}}"))
        .collect()
}

fn decode_times(decoder: &mut SourceDecoder, slot: SplitSlot, times: &[i64]) -> DecodedRows {
    let payloads = payloads(times);
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    decode(decoder, slot, &payloads)
}

fn late_positions(rows: &DecodedRows) -> Vec<String> {
    reasons(rows)
        .iter()
        .map(|line| line.split('|').take(2).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn older_than_the_watermark_is_late_and_equal_is_not() {
    let mut decoder = decoder(&plan());
    let slot = decoder.open_split(split(WatermarkMoves::WithRows, None));
    let rows = decode_times(&mut decoder, slot, &[100, 95, 94, 200, 195, 194, 100]);
    assert_eq!(late_positions(&rows), ["2 late", "5 late", "6 late"]);
    assert_eq!(rows.batch.num_rows(), 4);
    assert!(rows.late.is_none());
    assert_eq!((rows.counters.accepted, rows.counters.rejected), (4, 3));
    assert_eq!(decoder.watermark(slot), Some(seconds(195)));
    assert_eq!(
        reasons(&rows)[0],
        "2|late|column \"at\": 1970-01-01T00:01:34.000000 is older than the watermark 1970-01-01T00:01:35.000000"
    );
}

#[test]
fn where_batches_end_does_not_matter() {
    let times = [100, 94, 96, 300, 295, 100, 294, 301, 296, 295];
    let mut whole = decoder(&plan());
    let slot = whole.open_split(split(WatermarkMoves::WithRows, Some(97)));
    let expected = lines(&decode_times(&mut whole, slot, &times).batch);
    for border in 0..times.len() {
        let mut parted = decoder(&plan());
        let slot = parted.open_split(split(WatermarkMoves::WithRows, Some(97)));
        let mut found = lines(&decode_times(&mut parted, slot, &times[..border]).batch);
        found.extend(lines(
            &decode_times(&mut parted, slot, &times[border..]).batch,
        ));
        assert_eq!(found, expected, "border {border}");
    }
}

#[test]
fn splits_judge_their_own_rows_only() {
    let mut decoder = decoder(&plan());
    let ahead = decoder.open_split(split(WatermarkMoves::WithRows, None));
    let behind = decoder.open_split(split(WatermarkMoves::WithRows, None));
    let payloads = payloads(&[1_000, 10, 1_001, 11, 10]);
    let records: Vec<RecordRef<'_>> = payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| {
            let slot = if index % 2 == 0 { ahead } else { behind };
            record(slot, index as i64, payload.as_bytes())
        })
        .collect();
    let rows = decoder.decode_records(&records).expect("decode");
    assert_eq!(late_positions(&rows), ["4 late"]);
    assert_eq!(decoder.watermark(ahead), Some(seconds(996)));
    assert_eq!(decoder.watermark(behind), Some(seconds(6)));
}

#[test]
fn a_refused_row_does_not_move_the_watermark() {
    let mut plan = plan();
    plan.columns.push(column("id", DataType::Int64, false));
    let mut decoder = decoder(&plan);
    let slot = decoder.open_split(split(WatermarkMoves::WithRows, None));
    let rows = decode(
        &mut decoder,
        slot,
        &["{\"at\":1000}", "{\"at\":5,\"id\":1}"],
    );
    assert_eq!(late_positions(&rows), ["0 null_violation"]);
    assert_eq!(decoder.watermark(slot), Some(seconds(0)));
}

#[test]
fn the_watermark_of_a_file_moves_only_at_its_end() {
    let mut decoder = decoder(&plan());
    let slot = decoder.open_split(split(WatermarkMoves::AtEnd, Some(50)));
    let rows = decode_times(&mut decoder, slot, &[1_000, 50, 49, 60]);
    assert_eq!(late_positions(&rows), ["2 late"]);
    assert_eq!(decoder.watermark(slot), Some(seconds(50)));
    assert_eq!(decoder.close_split(slot), Some(seconds(995)));
    let slot = decoder.open_split(split(WatermarkMoves::AtEnd, Some(2_000)));
    decode_times(&mut decoder, slot, &[2_001]);
    assert_eq!(decoder.close_split(slot), Some(seconds(2_000)));
}

#[test]
fn a_woken_split_starts_at_the_watermark_of_the_job() {
    let mut decoder = decoder(&plan());
    let slot = decoder.open_split(split(WatermarkMoves::WithRows, Some(10)));
    decoder.raise_watermark(slot, seconds(70));
    decoder.raise_watermark(slot, seconds(60));
    let rows = decode_times(&mut decoder, slot, &[69, 70]);
    assert_eq!(late_positions(&rows), ["0 late"]);
}

#[test]
fn late_rows_stay_with_a_flag_where_a_path_keeps_no_time() {
    let plan = plan();
    let mut decoder =
        SourceDecoder::new(&plan, &Functions::new(), Arc::new(StillClock), true).expect("decoder");
    let slot = decoder.open_split(split(WatermarkMoves::WithRows, None));
    let rows = decode(
        &mut decoder,
        slot,
        &["{\"at\":100}", "{}", "{\"at\":1}", "{\"at\":101}"],
    );
    let late = rows.late.as_ref().expect("a late row");
    assert_eq!(
        late.iter().collect::<Vec<_>>(),
        [Some(false), Some(true), Some(false)]
    );
    assert_eq!(late_positions(&rows), ["1 null_violation", "2 late"]);
    assert_eq!((rows.counters.accepted, rows.counters.rejected), (2, 2));
    let rows = decode_times(&mut decoder, slot, &[101]);
    assert!(rows.late.is_none());
}

#[test]
fn where_nothing_keeps_time_no_row_is_late_and_null_times_pass() {
    let mut plan = plan();
    plan.keeps_time = false;
    let mut decoder = decoder(&plan);
    let slot = decoder.open_split(split(WatermarkMoves::WithRows, None));
    let rows = decode(&mut decoder, slot, &["{\"at\":100}", "{}", "{\"at\":1}"]);
    assert_eq!(rows.counters.accepted, 3);
    assert!(rows.rejects.is_none());
    assert_eq!(decoder.watermark(slot), Some(seconds(95)));
}

#[test]
fn late_rows_are_kept_aside_also_where_broken_ones_are_dropped() {
    for on_violation in [OnViolation::Drop, OnViolation::Fail] {
        let mut plan = plan();
        plan.on_violation = on_violation;
        let mut decoder = decoder(&plan);
        let slot = decoder.open_split(split(WatermarkMoves::WithRows, None));
        let rows = decode_times(&mut decoder, slot, &[100, 1]);
        assert_eq!(late_positions(&rows), ["1 late"]);
    }
}
