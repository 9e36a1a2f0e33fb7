//! What a preview has shown, and the text of what comes next: rows as a table or as JSON, and words about them. Pure.

use millstream_common::control::PreviewHeader;
use millstream_common::ids::JobName;
use millstream_common::preview::rows::PreviewRow;
use millstream_common::text;

use super::table::GrowingTable;

/// Rows that were passed over are told when there are so many times as many as when they were told last.
const TOLD_AGAIN_FACTOR: u64 = 10;

/// So far.
pub(super) struct Shown {
    is_json: bool,
    limit: Option<u64>,
    header: Option<PreviewHeader>,
    table: GrowingTable,
    row_count: u64,
    skipped_count: u64,
    /// Passed over when that was told last.
    told_count: u64,
}

impl Shown {
    /// Nothing yet.
    pub(super) fn new(is_json: bool, limit: Option<u64>) -> Self {
        Self {
            is_json,
            limit,
            header: None,
            table: GrowingTable::default(),
            row_count: 0,
            skipped_count: 0,
            told_count: 0,
        }
    }

    /// What is to be said when the rows of a generation begin.
    pub(super) fn begin(&mut self, job: &JobName, header: &PreviewHeader) -> String {
        let known = self.header.replace(header.clone());
        if known.as_ref().map(|known| &known.columns) != Some(&header.columns) {
            self.table = GrowingTable::new(header);
        }
        let generation = header.generation;
        if known.is_some() {
            return format!(
                "the job goes on as generation {generation}: rows of epochs that were not committed may come again"
            );
        }
        let workers = header.workers.len();
        let noun = if workers == 1 { "worker" } else { "workers" };
        let mut told = format!(
            "{} of job {job}, generation {generation} on {workers} {noun}; rows may be of epochs that are not committed",
            header.relation
        );
        if !header.left_out.is_empty() {
            let columns = header.left_out.join(", ");
            told.push_str(&format!("\nnot shown, because no task keeps it: {columns}"));
        }
        told
    }

    /// The text of rows, as far as they are wanted.
    pub(super) fn rows(&mut self, rows: &[PreviewRow]) -> String {
        let wanted = self.limit.map(|limit| limit - self.row_count);
        let wanted = wanted.and_then(|wanted| usize::try_from(wanted).ok());
        let rows = &rows[..rows.len().min(wanted.unwrap_or(usize::MAX))];
        self.row_count += rows.len() as u64;
        match self.is_json {
            true => rows.iter().map(|row| format!("{}\n", row.json)).collect(),
            false => self.table.append(rows),
        }
    }

    /// Takes note of rows that were passed over; what is to be said about it, if it is time to.
    pub(super) fn skipped(&mut self, row_count: u64) -> Option<String> {
        self.skipped_count += row_count;
        let is_due = row_count > 0 && self.skipped_count >= self.told_count * TOLD_AGAIN_FACTOR;
        is_due.then(|| {
            self.told_count = self.skipped_count;
            format!("{}; the job does not wait for a reader", self.passed_over())
        })
    }

    /// What is to be said at the end.
    pub(super) fn summary(&self) -> String {
        let rows = text::count(self.row_count);
        let noun = if self.row_count == 1 { "row" } else { "rows" };
        match self.skipped_count {
            0 => format!("{rows} {noun}"),
            _ => format!("{rows} {noun}; {}", self.passed_over()),
        }
    }

    fn passed_over(&self) -> String {
        let count = text::count(self.skipped_count);
        format!("{count} were passed over, because they came faster than they were read")
    }

    pub(super) fn row_count(&self) -> u64 {
        self.row_count
    }

    pub(super) fn has_begun(&self) -> bool {
        self.header.is_some()
    }

    pub(super) fn is_enough(&self) -> bool {
        self.limit.is_some_and(|limit| self.row_count >= limit)
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::control::PreviewColumn;
    use millstream_common::ids::Generation;
    use millstream_common::preview::rows::Operation;

    use super::*;

    fn header(generation: u64) -> PreviewHeader {
        PreviewHeader {
            relation: "clicks".to_owned(),
            generation: Generation(generation),
            columns: vec![PreviewColumn {
                name: "n".to_owned(),
                sql_type: "BIGINT".to_owned(),
            }],
            left_out: vec!["agent".to_owned()],
            workers: vec!["w1".into()],
            ..PreviewHeader::default()
        }
    }

    fn row(n: u32) -> PreviewRow {
        PreviewRow {
            operation: Operation::Insert,
            cells: vec![n.to_string()],
            json: format!("{{\"n\":{n}}}"),
        }
    }

    #[test]
    fn no_more_rows_are_shown_than_were_asked_for() {
        let mut shown = Shown::new(true, Some(3));
        shown.begin(&"views".into(), &header(1));
        assert_eq!(shown.rows(&[row(1), row(2)]), "{\"n\":1}\n{\"n\":2}\n");
        assert!(!shown.is_enough());
        assert_eq!(shown.rows(&[row(3), row(4)]), "{\"n\":3}\n");
        assert!(shown.is_enough());
        assert_eq!(shown.summary(), "3 rows");
    }

    #[test]
    fn what_is_shown_and_what_begins_again_is_said() {
        let mut shown = Shown::new(false, None);
        let told = shown.begin(&"views".into(), &header(1));
        assert!(
            told.starts_with("clicks of job views, generation 1 on 1 worker;"),
            "{told}"
        );
        assert!(
            told.ends_with("not shown, because no task keeps it: agent"),
            "{told}"
        );
        let first = shown.rows(&[row(1)]);
        assert_eq!(first.lines().count(), 3, "{first}");
        let told = shown.begin(&"views".into(), &header(2));
        assert!(
            told.contains("generation 2") && told.contains("may come again"),
            "{told}"
        );
        assert_eq!(
            shown.rows(&[row(2)]).lines().count(),
            1,
            "the table goes on"
        );
    }

    #[test]
    fn rows_that_were_passed_over_are_counted_and_told_now_and_then() {
        let mut shown = Shown::new(false, None);
        let told = [0, 2, 3, 14, 1].map(|count| shown.skipped(count).is_some());
        assert_eq!(told, [false, true, false, false, true]);
        assert!(shown.summary().starts_with("0 rows; 20 were passed over"));
    }
}
