//! Aligned tables for people. Pure.

/// How a column stands below its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A column's title and how it stands.
pub(crate) type Column = (&'static str, Align);

/// Blanks between two columns.
const GAP: &str = "  ";

/// Title line and rows, each column as wide as its widest cell, no blanks at the end of a line. An
/// empty cell is shown as `-`.
pub(crate) fn render(columns: &[Column], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], index: usize| match row.get(index).map(String::as_str) {
        None | Some("") => "-".to_owned(),
        Some(text) => text.to_owned(),
    };
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, (title, _))| {
            let widest = rows
                .iter()
                .map(|row| cell(row, index).chars().count())
                .max();
            title.len().max(widest.unwrap_or(0))
        })
        .collect();
    let line = |cells: Vec<String>| {
        let padded = cells.iter().enumerate().map(|(index, text)| {
            let width = widths[index];
            match columns[index].1 {
                Align::Left => format!("{text:<width$}"),
                Align::Right => format!("{text:>width$}"),
            }
        });
        let joined = padded.collect::<Vec<_>>().join(GAP);
        format!("{}\n", joined.trim_end())
    };
    let mut text = line(
        columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect(),
    );
    for row in rows {
        text.push_str(&line(
            (0..columns.len()).map(|index| cell(row, index)).collect(),
        ));
    }
    text
}

/// Names and values below each other; empty values are left out.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown
        .map(|(name, value)| format!("{name:<width$}{GAP}{value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_left_and_numbers_right() {
        let columns = [
            ("NAME", Align::Left),
            ("ROWS", Align::Right),
            ("CAUSE", Align::Left),
        ];
        let rows = [
            vec!["clicks".to_owned(), "1,204".to_owned(), String::new()],
            vec!["é".to_owned(), "7".to_owned(), "waits".to_owned()],
        ];
        let expected = "NAME     ROWS  CAUSE\nclicks  1,204  -\né           7  waits\n";
        assert_eq!(render(&columns, &rows), expected);
    }

    #[test]
    fn pairs_without_a_value_are_left_out() {
        let shown = pairs(&[
            ("job", "clicks".to_owned()),
            ("cause", String::new()),
            ("epoch", "7".to_owned()),
        ]);
        assert_eq!(shown, "job    clicks\nepoch  7\n");
    }
}
