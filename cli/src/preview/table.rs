//! A table that grows: titles once, then line after line in columns as wide as anything seen so far. Pure.
//!
//! Where a row is wider than all before it, the lines from it on are; the titles come again then, but not more often than each
//! [`LINES_BETWEEN_TITLES`] lines. The first column of a changelog is what a row does.

use millstream_common::control::PreviewHeader;
use millstream_common::preview::rows::PreviewRow;

/// A cell is cut behind so many characters; JSON has all of it.
const CELL_CHARS_MAX: usize = 60;
const LINES_BETWEEN_TITLES: usize = 20;

#[derive(Debug, Default)]
pub(super) struct GrowingTable {
    columns: Vec<Column>,
    has_operation: bool,
    /// Since the titles; `None` before them.
    lines: Option<usize>,
}

#[derive(Debug)]
struct Column {
    title: String,
    width: usize,
    stands_right: bool,
}

impl GrowingTable {
    pub(super) fn new(header: &PreviewHeader) -> Self {
        let operation = header.is_changelog.then(|| Column::new("op", "TEXT"));
        let columns = header.columns.iter();
        let columns = columns.map(|column| Column::new(&column.name, &column.sql_type));
        Self {
            columns: operation.into_iter().chain(columns).collect(),
            has_operation: header.is_changelog,
            lines: None,
        }
    }

    /// The lines of `rows`, behind titles where they are due.
    pub(super) fn append(&mut self, rows: &[PreviewRow]) -> String {
        let lines: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
        let has_grown = self.grow(&lines);
        let mut text = String::new();
        let is_due = match self.lines {
            None => !rows.is_empty(),
            Some(count) => has_grown && count >= LINES_BETWEEN_TITLES,
        };
        if is_due {
            text.push_str(&self.titles());
            self.lines = Some(0);
        }
        for line in &lines {
            text.push_str(&self.line(line));
        }
        self.lines = self.lines.map(|count| count + lines.len());
        text
    }

    fn cells(&self, row: &PreviewRow) -> Vec<String> {
        let operation = self.has_operation.then(|| row.operation.to_string());
        let cells = row.cells.iter().map(|cell| cut(cell));
        operation.into_iter().chain(cells).collect()
    }

    fn grow(&mut self, lines: &[Vec<String>]) -> bool {
        let mut has_grown = false;
        for line in lines {
            for (column, cell) in self.columns.iter_mut().zip(line) {
                let width = cell.chars().count();
                has_grown |= width > column.width;
                column.width = column.width.max(width);
            }
        }
        has_grown
    }

    fn titles(&self) -> String {
        let titles: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.title.clone())
            .collect();
        let rules = self
            .columns
            .iter()
            .map(|column| "-".repeat(column.width + 2));
        format!(
            "{}{}\n",
            self.line(&titles),
            rules.collect::<Vec<_>>().join("+")
        )
    }

    fn line(&self, cells: &[String]) -> String {
        let padded = self.columns.iter().zip(cells).map(|(column, cell)| {
            let width = column.width;
            match column.stands_right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            }
        });
        let line = padded.collect::<Vec<_>>().join(" | ");
        format!(" {}\n", line.trim_end())
    }
}

impl Column {
    fn new(title: &str, sql_type: &str) -> Self {
        let title = cut(title);
        let is_number = ["SMALLINT", "INTEGER", "BIGINT", "REAL", "DOUBLE", "NUMERIC"]
            .iter()
            .any(|name| sql_type.starts_with(name));
        Self {
            width: title.chars().count(),
            stands_right: is_number,
            title,
        }
    }
}

fn cut(cell: &str) -> String {
    match cell.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &cell[..end]),
        None => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::control::PreviewColumn;
    use millstream_common::preview::rows::Operation;

    use super::*;

    fn header(is_changelog: bool) -> PreviewHeader {
        let column = |name: &str, sql_type: &str| PreviewColumn {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
        };
        PreviewHeader {
            is_changelog,
            columns: vec![column("url", "TEXT"), column("views", "BIGINT")],
            ..PreviewHeader::default()
        }
    }

    fn row(operation: Operation, url: &str, views: &str) -> PreviewRow {
        PreviewRow {
            operation,
            cells: vec![url.to_owned(), views.to_owned()],
            json: String::new(),
        }
    }

    #[test]
    fn a_changelog_says_of_each_row_what_it_does() {
        let mut table = GrowingTable::new(&header(true));
        let first = table.append(&[
            row(Operation::Upsert, "/home", "7"),
            row(Operation::Delete, "/a", "1204"),
        ]);
        let expected =
            " op | url   | views\n----+-------+-------\n +U | /home |     7\n -D | /a    |  1204\n";
        assert_eq!(first, expected);
        let next = table.append(&[row(Operation::Upsert, "/é", "NULL")]);
        assert_eq!(next, " +U | /é    |  NULL\n");
    }

    #[test]
    fn columns_grow_and_their_titles_come_again_only_now_and_then() {
        let mut table = GrowingTable::new(&header(false));
        let titled = |text: &str| text.contains("url");
        assert_eq!(table.append(&[]), "");
        assert!(titled(&table.append(&[row(Operation::Insert, "/", "1")])));
        let wider = table.append(&[row(Operation::Insert, "/wider", "1")]);
        assert_eq!(wider, " /wider |     1\n");
        let many = vec![row(Operation::Insert, "/", "1"); LINES_BETWEEN_TITLES];
        assert!(!titled(&table.append(&many)));
        assert!(titled(&table.append(&[row(
            Operation::Insert,
            "/still wider",
            "1"
        )])));
    }

    #[test]
    fn a_cell_without_end_is_cut() {
        let mut table = GrowingTable::new(&header(false));
        let text = table.append(&[row(Operation::Insert, &"é".repeat(100), "1")]);
        let cell = format!(" {}… |", "é".repeat(CELL_CHARS_MAX));
        assert!(text.lines().any(|line| line.starts_with(&cell)), "{text}");
    }
}
