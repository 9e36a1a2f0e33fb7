//! Dead letters to and from generated messages, and what fits into one of them. Empty texts on the wire are `None` here.

use millstream_proto::v1;

use crate::control::{
    DeadLetterView, LetterCount, LetterFilter, LetterPage, LetterQuery, LetterTotals,
    ReplayRequest, Replayed, SkippedLetters,
};
use crate::ids::{Epoch, JobName};

/// Rows of one message: with its frame far below the four megabytes that a server takes.
const ROWS_BYTES_MAX: usize = 1 << 20;

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// About what a letter takes in a message.
pub fn page_bytes(letter: &DeadLetterView) -> usize {
    let payload = letter.payload.as_ref().map_or(0, String::len);
    let bytes = letter.payload_bytes.as_ref().map_or(0, Vec::len);
    payload + bytes + letter.source.len() + letter.origin.len() + letter.reason.len() + 64
}

impl From<LetterFilter> for v1::DeadLetterFilter {
    fn from(filter: LetterFilter) -> Self {
        Self {
            owner: filter.owner.unwrap_or_default(),
            code: filter.code.unwrap_or_default(),
            since_us: filter.since_us,
            until_us: filter.until_us,
            origin: filter.origin.unwrap_or_default(),
        }
    }
}

impl From<v1::DeadLetterFilter> for LetterFilter {
    fn from(filter: v1::DeadLetterFilter) -> Self {
        Self {
            owner: some(filter.owner),
            code: some(filter.code),
            since_us: filter.since_us,
            until_us: filter.until_us,
            origin: some(filter.origin),
        }
    }
}

impl From<v1::ListDeadLettersRequest> for LetterQuery {
    fn from(request: v1::ListDeadLettersRequest) -> Self {
        Self {
            filter: request.filter.unwrap_or_default().into(),
            limit: request.limit,
        }
    }
}

impl From<DeadLetterView> for v1::DeadLetter {
    fn from(letter: DeadLetterView) -> Self {
        Self {
            source: letter.source,
            origin: letter.origin,
            position: letter.position,
            payload: letter.payload,
            payload_bytes: letter.payload_bytes,
            code: letter.code,
            reason: letter.reason,
            event_time_us: letter.event_time_us,
            received_at_us: letter.received_at_us,
            epoch: letter.epoch.0,
            is_cut: letter.is_cut,
        }
    }
}

impl From<v1::DeadLetter> for DeadLetterView {
    fn from(letter: v1::DeadLetter) -> Self {
        Self {
            source: letter.source,
            origin: letter.origin,
            position: letter.position,
            payload: letter.payload,
            payload_bytes: letter.payload_bytes,
            code: letter.code,
            reason: letter.reason,
            event_time_us: letter.event_time_us,
            received_at_us: letter.received_at_us,
            epoch: Epoch(letter.epoch),
            is_cut: letter.is_cut,
        }
    }
}

impl From<LetterPage> for v1::ListDeadLettersResponse {
    fn from(page: LetterPage) -> Self {
        let count = |count: LetterCount| v1::DeadLetterCount {
            owner: count.owner,
            code: count.code,
            rows: count.rows,
        };
        Self {
            letters: page.letters.into_iter().map(Into::into).collect(),
            totals: page.totals.map(|totals| v1::DeadLetterTotals {
                counts: totals.counts.into_iter().map(count).collect(),
                dropped: totals.dropped,
            }),
        }
    }
}

impl From<v1::ListDeadLettersResponse> for LetterPage {
    fn from(response: v1::ListDeadLettersResponse) -> Self {
        let count = |count: v1::DeadLetterCount| LetterCount {
            owner: count.owner,
            code: count.code,
            rows: count.rows,
        };
        Self {
            letters: response.letters.into_iter().map(Into::into).collect(),
            totals: response.totals.map(|totals| LetterTotals {
                counts: totals.counts.into_iter().map(count).collect(),
                dropped: totals.dropped,
            }),
        }
    }
}

/// The messages of a request: what is wanted, then the rows.
pub fn replay_requests(
    name: &JobName,
    request: ReplayRequest,
) -> Vec<v1::ReplayDeadLettersRequest> {
    let mut messages = vec![v1::ReplayDeadLettersRequest {
        name: name.0.clone(),
        filter: Some(request.filter.into()),
        corrected: request.corrected.is_some(),
        event_time_now: request.event_time_now,
        again: request.again,
        rows: Vec::new(),
    }];
    let mut bytes = ROWS_BYTES_MAX;
    for row in request.corrected.unwrap_or_default() {
        // Short rows have their frames too.
        bytes += row.len() + 8;
        if bytes > ROWS_BYTES_MAX {
            messages.push(v1::ReplayDeadLettersRequest::default());
            bytes = row.len() + 8;
        }
        if let Some(last) = messages.last_mut() {
            last.rows.push(row);
        }
    }
    messages
}

/// The request that the first message makes; rows of later ones are added by the caller.
pub fn replay_request(first: v1::ReplayDeadLettersRequest) -> (String, ReplayRequest) {
    let request = ReplayRequest {
        filter: first.filter.unwrap_or_default().into(),
        corrected: first.corrected.then_some(first.rows),
        event_time_now: first.event_time_now,
        again: first.again,
    };
    (first.name, request)
}

impl From<Replayed> for v1::ReplayDeadLettersResponse {
    fn from(replayed: Replayed) -> Self {
        let skipped = replayed.skipped.into_iter();
        Self {
            split: replayed.split.unwrap_or_default(),
            rows: replayed.rows,
            known: replayed.known,
            skipped: skipped
                .map(|skipped| v1::SkippedLetters {
                    rows: skipped.rows,
                    reason: skipped.reason,
                })
                .collect(),
        }
    }
}

impl From<v1::ReplayDeadLettersResponse> for Replayed {
    fn from(response: v1::ReplayDeadLettersResponse) -> Self {
        let skipped = response.skipped.into_iter();
        Self {
            split: some(response.split),
            rows: response.rows,
            known: response.known,
            skipped: skipped
                .map(|skipped| SkippedLetters {
                    rows: skipped.rows,
                    reason: skipped.reason,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrected_rows_travel_in_messages_that_a_server_takes() {
        let rows: Vec<Vec<u8>> = (0..5).map(|row| vec![row; 400 << 10]).collect();
        let request = ReplayRequest {
            corrected: Some(rows.clone()),
            again: true,
            ..ReplayRequest::default()
        };
        let mut messages = replay_requests(&"clicks".into(), request).into_iter();
        let (name, first) = replay_request(messages.next().expect("a first"));
        assert_eq!((name.as_str(), first.again), ("clicks", true));
        assert_eq!(first.corrected, Some(Vec::new()));
        let rest: Vec<Vec<Vec<u8>>> = messages.map(|message| message.rows).collect();
        assert_eq!(rest.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(rest.concat(), rows);
    }
}
