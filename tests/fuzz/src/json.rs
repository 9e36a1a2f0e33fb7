//! Records of JSON, one a line. Where batches end makes no difference; serde_json says what is well formed; each record is a row or
//! a dead letter.

use std::sync::{LazyLock, Mutex};

use millstream_worker::decode::RecordRef;
use serde_json::value::RawValue;

use crate::decoded::{Fed, Told, source};

static FED: LazyLock<Mutex<Fed>> = LazyLock::new(|| {
    let options = "connector = 'kafka', brokers = 'localhost:9092', topic = 't', format = 'json'";
    Mutex::new(Fed::new(&source(options)))
});
const MALFORMED: &str = "malformed";

pub(crate) fn feed(data: &[u8]) {
    let records: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let at_once = read(&records, records.len());
    let one_by_one = read(&records, 1);
    assert_eq!(at_once, one_by_one, "where batches end makes no difference");
}

fn read(records: &[&[u8]], batch_records: usize) -> Told {
    let mut fed = FED.lock().expect("one thread");
    let (decoder, slot) = fed.begin();
    let mut told = Told::default();
    let mut position = 0;
    for batch in records.chunks(batch_records) {
        let record = |(payload, position)| RecordRef {
            slot,
            position,
            payload: Some(payload),
            key: None,
            timestamp_ms: None,
            headers: None,
        };
        let records = batch.iter().copied().zip(position..).map(record);
        let records: Vec<RecordRef<'_>> = records.collect();
        let decoded = decoder.decode_records(&records);
        let refused_count = told.letters.len();
        told.add(&decoded.expect("dead letters, not failures"));
        if let [record] = batch {
            compare(record, &told.letters[refused_count..]);
        }
        position += batch.len() as i64;
    }
    let count = told.rows.len() + told.letters.len();
    assert_eq!(count, records.len(), "a row or a dead letter each");
    told
}

/// What serde_json does not take is malformed.
fn compare(record: &[u8], letters: &[String]) {
    let is_well_formed = serde_json::from_slice::<&RawValue>(record).is_ok();
    let is_malformed = letters.iter().any(|letter| letter.contains(MALFORMED));
    assert!(
        is_well_formed || is_malformed,
        "serde_json refuses what was taken: {letters:?}"
    );
}
