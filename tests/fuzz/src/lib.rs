//! What strangers write, as the fuzzer makes it up: records of JSON and CSV, and SQL.
//!
//! Fed by `main.rs` under `make fuzz`, and by `tests/inputs.rs` with what is kept. Each target holds more than that nothing panics:
//! the rules stand in its own file. Failure: a panic that says which rule was broken.

mod csv;
mod decoded;
mod json;
mod sql;

/// What is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Records of JSON, one a line.
    Json,
    /// A CSV file, behind one byte that says how it is cut.
    Csv,
    /// A job.
    Sql,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Sql];

    /// Its name, also of the folder of its inputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Sql => "sql",
        }
    }

    /// Feeds it; panics where a rule is broken.
    pub fn feed(self, data: &[u8]) {
        match self {
            Self::Json => json::feed(data),
            Self::Csv => csv::feed(data),
            Self::Sql => sql::feed(data),
        }
    }
}
