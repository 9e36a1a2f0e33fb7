//! Options of the `datagen` source: how each column is made up.
//!
//! `"fields.<column>.<option>"` says how; where nothing is said the type of the column decides. Times are ISO text and
//! steps of times are durations; in the spec both are microseconds, for DATE too. With `"nexmark.table.type"` a column of which nothing is
//! said is the one that the benchmark's table has under its name.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use millstream_common::datagen;
use millstream_common::datagen::nexmark::NexmarkTable;
use millstream_common::plan::connector::{DatagenField, DatagenKind, DatagenSpec};

use super::Options;
use super::source::RecordColumn;
use crate::plan::problem::{Place, Problem};
use crate::plan::{types, value};

const NEXMARK_TABLE: &str = "nexmark.table.type";
const FIELD_OPTIONS: [&str; 10] = [
    "kind",
    "start",
    "step",
    "min",
    "max",
    "decimals",
    "values",
    "skew",
    "template",
    "null_rate",
];
/// Where made-up times begin if nothing is said: 2026-01-01T00:00:00 UTC.
const FIRST_MOMENT: &str = "2026-01-01T00:00:00Z";

/// Takes the options of a `datagen` source.
pub(super) fn read(options: &mut Options<'_>, columns: &[RecordColumn]) -> DatagenSpec {
    let row_count = options.number("rows", 0);
    let rows_per_second = options.number("rows_per_second", 1);
    let seed = options.number("seed", 0).unwrap_or(0);
    let nexmark = options.word(NEXMARK_TABLE, &NexmarkTable::NAMES);
    let mut by_column = gather(options, columns);
    let fields = columns
        .iter()
        .map(|column| {
            let given = by_column.remove(&column.name).unwrap_or_default();
            Field {
                options,
                column,
                given,
                row_count,
                nexmark,
            }
            .read()
        })
        .collect();
    DatagenSpec {
        row_count,
        rows_per_second,
        seed,
        fields,
    }
}

/// The options of each column, by option; unknown columns and options are problems.
fn gather(
    options: &mut Options<'_>,
    columns: &[RecordColumn],
) -> BTreeMap<String, BTreeMap<String, (String, String)>> {
    let mut by_column: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for option in options.with_prefix("fields.") {
        let Some((column, what)) = option.rest.rsplit_once('.') else {
            let problem = Problem::at(option.name_place, format!("unknown option {}", option.name));
            let problem = problem.hint("write \"fields.<column>.<option>\" = ...");
            options.problems.push(problem);
            continue;
        };
        let names = columns.iter().map(|column| column.name.as_str());
        if !names.clone().any(|name| name == column) {
            let problem = Problem::at(option.name_place, format!("unknown column {column}"));
            options.problems.push(problem.nearest(column, names));
            continue;
        }
        if !FIELD_OPTIONS.contains(&what) {
            let problem = Problem::at(option.name_place, format!("a field has no option {what}"));
            let problem = match millstream_common::suggest::nearest(what, FIELD_OPTIONS) {
                Some(nearest) => problem.hint(format!("did you mean {nearest}?")),
                None => problem.hint(format!("options are {}", FIELD_OPTIONS.join(", "))),
            };
            options.problems.push(problem);
            continue;
        }
        if let Some(text) = options.resolve(&option.name, &option.value) {
            let entry = by_column.entry(column.to_owned()).or_default();
            entry.insert(what.to_owned(), (text, option.name.clone()));
        }
    }
    by_column
}

/// The options of one column, being read.
struct Field<'o, 'a, 'c> {
    options: &'o mut Options<'a>,
    column: &'c RecordColumn,
    /// By option: the value, and the whole name for messages.
    given: BTreeMap<String, (String, String)>,
    /// Of the source.
    row_count: Option<u64>,
    /// The table that its columns are of.
    nexmark: Option<NexmarkTable>,
}

impl Field<'_, '_, '_> {
    fn read(mut self) -> DatagenField {
        let null_rate = self.number("null_rate", 0.0, 0.0, 1.0);
        let known_problems = self.options.problems.len();
        let kind = match self.kind().as_str() {
            "nexmark" => self.of_nexmark(),
            "sequence" => self.sequence(),
            "uniform" => self.uniform(),
            "choice" => self.choice(),
            _ => self.template(),
        };
        if self.options.problems.len() == known_problems {
            self.refuse_misfit(&kind);
        }
        self.refuse_left(&kind);
        DatagenField {
            column: self.column.name.clone(),
            kind,
            null_rate,
        }
    }

    fn kind(&mut self) -> String {
        let Some((kind, name)) = self.given.remove("kind") else {
            return self.default_kind().to_owned();
        };
        let kinds = ["sequence", "uniform", "choice", "template"];
        if kinds.contains(&kind.as_str()) {
            return kind;
        }
        let place = self.options.place_of(&name);
        let problem = Problem::at(place, format!("unknown kind '{kind}'"));
        let problem = match millstream_common::suggest::nearest(&kind, kinds) {
            Some(nearest) => problem.hint(format!("did you mean '{nearest}'?")),
            None => problem.hint("it is one of 'sequence', 'uniform', 'choice', 'template'"),
        };
        self.options.problems.push(problem);
        self.given.clear();
        self.default_kind().to_owned()
    }

    fn default_kind(&self) -> &'static str {
        let has = |option: &str| self.given.contains_key(option);
        if self.nexmark.is_some() && self.given.is_empty() {
            return "nexmark";
        }
        if has("template") {
            return "template";
        }
        if has("values") || has("skew") {
            return "choice";
        }
        if has("min") || has("max") || has("decimals") {
            return "uniform";
        }
        if has("start") || has("step") {
            return "sequence";
        }
        match &self.column.data_type {
            DataType::Utf8 | DataType::Binary => "template",
            DataType::Boolean => "choice",
            DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => "uniform",
            _ => "sequence",
        }
    }

    fn of_nexmark(&mut self) -> DatagenKind {
        let column = &self.column.name;
        let named = self.nexmark.map(|table| (table, table.value(column)));
        if let Some((table, Some(value))) = named {
            return DatagenKind::Nexmark { table, value };
        }
        let columns = named.map_or(&[][..], |(table, _)| table.columns());
        let names = columns.iter().map(|(name, _)| *name);
        let place = self.options.place_of(NEXMARK_TABLE);
        let problem = Problem::at(place, format!("the table has no column {column}"));
        let problem = match millstream_common::suggest::nearest(column, names.clone()) {
            Some(nearest) => problem.hint(format!("did you mean {nearest}?")),
            None => {
                let names = names.collect::<Vec<_>>().join(", ");
                let hint = format!("it has {names}; for another one add \"fields.{column}.kind\"");
                problem.hint(hint)
            }
        };
        self.options.problems.push(problem);
        // Stands for what is not known, in a plan that is refused.
        DatagenKind::Template {
            template: String::new(),
        }
    }

    fn is_time(&self) -> bool {
        types::is_time(&self.column.data_type) || self.column.data_type == DataType::Date32
    }

    fn sequence(&mut self) -> DatagenKind {
        if self.is_time() {
            let default_step = if self.column.data_type == DataType::Date32 {
                "1 day"
            } else {
                "1 second"
            };
            return DatagenKind::Sequence {
                start: self.parsed("start", FIRST_MOMENT, value::moment_micros),
                step: self.parsed("step", default_step, value::duration_micros),
            };
        }
        if matches!(
            self.column.data_type,
            DataType::Utf8 | DataType::Boolean | DataType::Binary
        ) {
            self.refuse_kind("sequence", "use kind = 'template' with template = '...{n}'");
        }
        let whole = |text: &str| {
            text.replace('_', "")
                .parse::<i64>()
                .map_err(|_| format!("{text:?} is no whole number"))
        };
        DatagenKind::Sequence {
            start: self.parsed("start", "1", whole),
            step: self.parsed("step", "1", whole),
        }
    }

    fn uniform(&mut self) -> DatagenKind {
        if matches!(
            self.column.data_type,
            DataType::Utf8 | DataType::Boolean | DataType::Binary
        ) {
            self.refuse_kind("uniform", "use kind = 'choice' with values = 'a,b'");
        }
        let (min, max) = if self.is_time() {
            let micros = |text: &str| value::moment_micros(text).map(|micros| micros as f64);
            (
                self.parsed("min", FIRST_MOMENT, micros),
                self.parsed("max", "2026-01-02T00:00:00Z", micros),
            )
        } else {
            let least = f64::MIN;
            let min = self.number("min", 0.0, least, f64::MAX);
            (min, self.number("max", 100.0_f64.max(min), least, f64::MAX))
        };
        if min > max {
            let message = format!(
                "the least value of {} is above the greatest",
                self.column.name
            );
            let place = self
                .options
                .place_of(&format!("fields.{}.min", self.column.name));
            self.options.problems.push(Problem::at(place, message));
        }
        let digits = match self.column.data_type {
            DataType::Decimal128(_, scale) => f64::from(scale),
            DataType::Float32 | DataType::Float64 => 2.0,
            _ => 0.0,
        };
        let decimals = self.number("decimals", digits, 0.0, 15.0) as u32;
        DatagenKind::Uniform { min, max, decimals }
    }

    fn choice(&mut self) -> DatagenKind {
        let values = match self.given.remove("values") {
            Some((text, _)) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            None if self.column.data_type == DataType::Boolean => {
                vec!["true".to_owned(), "false".to_owned()]
            }
            None => {
                let column = &self.column.name;
                let place = self.options.place_of(&format!("fields.{column}.kind"));
                let problem = Problem::at(place, format!("column {column} lacks its values"));
                let hint = format!("add \"fields.{column}.values\" = 'a,b,c'");
                self.options.problems.push(problem.hint(hint));
                Vec::new()
            }
        };
        DatagenKind::Choice {
            values,
            skew: self.number("skew", 0.0, 0.0, 100.0),
        }
    }

    fn template(&mut self) -> DatagenKind {
        if !matches!(self.column.data_type, DataType::Utf8 | DataType::Binary) {
            self.refuse_kind("template", "use it for a TEXT column");
        }
        let template = match self.given.remove("template") {
            Some((text, _)) => text,
            None => format!("{}-{{n}}", self.column.name),
        };
        DatagenKind::Template { template }
    }

    fn refuse_kind(&mut self, kind: &str, hint: &str) {
        let column = &self.column.name;
        let type_name = types::type_name(&self.column.data_type);
        let place = self.options.place_of(&format!("fields.{column}.kind"));
        let message = format!("kind '{kind}' does not make {type_name} for column {column}");
        self.options
            .problems
            .push(Problem::at(place, message).hint(hint));
    }

    fn parsed<T: Default>(
        &mut self,
        option: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let (text, place) = match self.given.remove(option) {
            Some((text, name)) => (text, self.options.place_of(&name)),
            None => (default.to_owned(), Place::default()),
        };
        match parse(text.trim()) {
            Ok(parsed) => parsed,
            Err(message) => {
                self.options.problems.push(Problem::at(place, message));
                T::default()
            }
        }
    }

    fn number(&mut self, option: &str, default: f64, least: f64, greatest: f64) -> f64 {
        self.parsed(option, &default.to_string(), |text| {
            match text.replace('_', "").parse::<f64>() {
                Ok(number) if (least..=greatest).contains(&number) => Ok(number),
                Ok(_) => Err(format!("{text} is not between {least} and {greatest}")),
                Err(_) => Err(format!("{text:?} is no number")),
            }
        })
    }

    /// What would stop the generator, at its start or in the middle.
    fn refuse_misfit(&mut self, kind: &DatagenKind) {
        let data_type = &self.column.data_type;
        let Err(misfit) = datagen::check(kind, data_type, self.row_count) else {
            return;
        };
        let (column, type_name) = (&self.column.name, types::type_name(data_type));
        if let DatagenKind::Nexmark { value, .. } = kind {
            let wanted = types::type_name(&value.data_type());
            let place = self.options.place_of(NEXMARK_TABLE);
            let message = format!("column {column} is {type_name}, and {wanted} in the benchmark");
            let problem = Problem::at(place, message);
            let hint = format!("declare it {wanted}");
            self.options.problems.push(problem.hint(hint));
            return;
        }
        let option = format!("fields.{column}.{}", misfit.option);
        let message = format!("column {column} is {type_name}: {}", misfit.cause);
        let place = self.options.place_of(&option);
        let problem = Problem::at(place, message);
        self.options
            .problems
            .push(match place == self.options.place {
                true => problem.hint(format!("add \"{option}\" = ...")),
                false => problem,
            });
    }

    /// What the kind does not know.
    fn refuse_left(&mut self, kind: &DatagenKind) {
        let kind_name = match kind {
            DatagenKind::Sequence { .. } => "sequence",
            DatagenKind::Uniform { .. } => "uniform",
            DatagenKind::Choice { .. } => "choice",
            DatagenKind::Template { .. } => "template",
            DatagenKind::Nexmark { .. } => "nexmark",
        };
        for (option, (_, name)) in std::mem::take(&mut self.given) {
            let place = self.options.place_of(&name);
            let message = format!("kind '{kind_name}' has no option {option}");
            self.options.problems.push(Problem::at(place, message));
        }
    }
}
