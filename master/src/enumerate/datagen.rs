//! The one split of a generator: all its rows.
//!
//! Called through [`Enumerator`]. Pure; cannot fail.

use std::collections::BTreeMap;

use async_trait::async_trait;
use millstream_common::ids::SplitId;
use millstream_common::plan::connector::DatagenSpec;
use millstream_common::report::SplitProgress;

use super::{EnumerateError, Enumerator, FoundSplit, found};

/// The split's name.
const SPLIT: &str = "datagen-0";

pub(super) struct DatagenEnumerator {
    row_count: Option<i64>,
}

impl DatagenEnumerator {
    pub(super) fn new(spec: &DatagenSpec) -> Self {
        let row_count = spec.row_count;
        Self {
            row_count: row_count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
        }
    }
}

#[async_trait]
impl Enumerator for DatagenEnumerator {
    async fn discover(
        &mut self,
        known: &BTreeMap<SplitId, SplitProgress>,
    ) -> Result<Vec<FoundSplit>, EnumerateError> {
        let split = SplitId::from(SPLIT);
        if known.contains_key(&split) {
            return Ok(vec![]);
        }
        Ok(vec![found(split, 0, self.row_count)])
    }

    fn is_exhausted(&self) -> bool {
        true
    }
}
