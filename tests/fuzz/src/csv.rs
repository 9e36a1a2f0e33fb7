//! A CSV file. Where the windows on its bytes end, and how many records are taken at once, makes no difference.

use std::sync::{LazyLock, Mutex};

use millstream_common::plan::FormatSpec;
use millstream_worker::decode::csv::{CsvFile, CsvWindow};

use crate::decoded::{Fed, Told, source};

/// So that inputs reach it.
const RECORD_BYTES_LIMIT: usize = 48;

static FED: LazyLock<Mutex<Fed>> = LazyLock::new(|| {
    let mut plan =
        source("connector = 'files', path = '/data/*.csv', format = 'csv', watch = true");
    if let FormatSpec::Csv {
        record_bytes_max, ..
    } = &mut plan.format
    {
        *record_bytes_max = RECORD_BYTES_LIMIT;
    }
    Mutex::new(Fed::new(&plan))
});

pub(crate) fn feed(data: &[u8]) {
    let Some((cut, file)) = data.split_first() else {
        return;
    };
    let whole = read(file, file.len() + RECORD_BYTES_LIMIT, usize::MAX);
    let more = usize::from(cut >> 3);
    let pieces = read(
        file,
        RECORD_BYTES_LIMIT + 1 + more,
        usize::from(cut & 7) + 1,
    );
    assert_eq!(whole, pieces, "where windows end makes no difference");
}

fn read(file: &[u8], window_bytes: usize, records_max: usize) -> Told {
    let mut fed = FED.lock().expect("one thread");
    let (decoder, slot) = fed.begin();
    let mut csv = CsvFile::new(decoder).expect("a CSV source");
    let mut told = Told::default();
    let (mut at, mut position) = (0_usize, 1);
    loop {
        let end = file.len().min(at.saturating_add(window_bytes));
        let window = CsvWindow {
            slot,
            first_position: position,
            bytes: &file[at..end],
            is_last: end == file.len(),
            records_max,
        };
        let step = csv
            .decode(decoder, window)
            .expect("dead letters, not failures");
        at += step.consumed;
        assert!(at <= end, "no more is consumed than there is");
        if let Some(rows) = &step.rows {
            told.add(rows);
            position += rows.counters.read as i64;
        }
        if step.is_refused || window.is_last && step.rows.is_none() {
            return told;
        }
        assert!(
            step.consumed > 0,
            "a window that is longer than any record has one"
        );
    }
}
