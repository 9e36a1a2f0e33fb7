//! Pages: objects with the older part of the index of dead letters.
//!
//! Written by the collector before the boundary that names them, so that boundaries stay small however many segments a week of
//! dead letters has; read by a listing, and by the collector when a page is dropped with its segments. A page is unique to its
//! writer: of two masters that page at once each names its own. It says for which boundary it was made: one that no boundary came to
//! name is collected once its maker has had its time. Failure: a page that is not what the boundary says is refused by name; one
//! that is gone was dropped meanwhile.

use bytes::Bytes;
use millstream_common::ids::{Epoch, Incarnation, Seq};
use millstream_common::ipc;
use millstream_common::log;
use millstream_common::store::StoreRef;

use super::index::{LetterPage, LetterSegment, Letters};

/// With more segments than this in an index its oldest go to a page.
const PAGED_ABOVE: usize = 2_048;
/// Segments of a page.
const PAGE_SEGMENTS: usize = 1_024;

/// Moves the oldest segments of `letters` to a page for the boundary at `seq`, if there are many; returns the page with what it holds.
pub async fn page(
    store: &StoreRef,
    life: Incarnation,
    seq: Seq,
    letters: &mut Letters,
) -> Result<Option<(LetterPage, Vec<LetterSegment>)>, log::Error> {
    if letters.segments.len() <= PAGED_ABOVE {
        return Ok(None);
    }
    let paged = letters.take_oldest(PAGE_SEGMENTS);
    let named = || paged.iter().map(LetterSegment::named_epoch);
    let newest = paged.last();
    let last_named = named().max().unwrap_or_default();
    let path = format!("letters/{life}/{:012}-{}.json", seq.0, ipc::attempt());
    let content = serde_json::to_vec(&paged).map_err(|error| broken(&path, error.to_string()))?;
    let page = LetterPage {
        checksum: ipc::checksum(&content),
        epoch: newest.map_or(Epoch(0), |letters| letters.epoch),
        at_us: newest.map_or(0, |letters| letters.at_us),
        bytes: paged.iter().map(|letters| letters.segment.bytes).sum(),
        row_count: paged.iter().map(|letters| letters.segment.row_count).sum(),
        first_named: named().min().unwrap_or_default(),
        last_named,
        path,
    };
    store.create(&page.path, Bytes::from(content)).await?;
    letters.pages.push_back(page.clone());
    Ok(Some((page, paged)))
}

/// What a page holds, oldest first; nothing where it was dropped meanwhile.
pub async fn read(store: &StoreRef, page: &LetterPage) -> Result<Vec<LetterSegment>, log::Error> {
    let Some(content) = store.get(&page.path).await? else {
        return Ok(Vec::new());
    };
    let found = ipc::checksum(&content);
    if found != page.checksum {
        let cause = format!("its checksum is {found:08x}, not {:08x}", page.checksum);
        return Err(broken(&page.path, cause));
    }
    serde_json::from_slice(&content).map_err(|error| broken(&page.path, error.to_string()))
}

fn broken(path: &str, cause: String) -> log::Error {
    log::Error::Broken {
        key: path.to_owned(),
        cause,
    }
}
