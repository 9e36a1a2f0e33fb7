//! `WATERMARK FOR column AS column - INTERVAL '...'`.

use datafusion::common::DFSchema;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr};
use millstream_common::plan::WatermarkPlan;
use millstream_common::time::EventSpan;

use super::Reader;
use crate::plan::parse::{Name, WatermarkClause};
use crate::plan::problem::Problem;
use crate::plan::problem::place_of;
use crate::plan::{lower, tumble, types};

impl Reader<'_> {
    pub(super) fn read_watermark(&mut self, clause: &WatermarkClause) -> Option<WatermarkPlan> {
        let name = &clause.column;
        let names = self
            .statement
            .columns
            .iter()
            .map(|column| column.name.text.as_str());
        let Some(index) = names.clone().position(|other| other == name.text) else {
            let problem = Problem::at(name.place, format!("unknown column {}", name.text));
            self.problems.push(problem.nearest(&name.text, names));
            return None;
        };
        let delay = self.delay(clause);
        let column = self.columns[index].as_mut()?;
        let data_type = column.field.data_type().clone();
        if !types::is_time(&data_type) {
            let shown = types::type_name(&data_type);
            let message = format!(
                "event time is TIMESTAMP or TIMESTAMPTZ, but {} is {shown}",
                name.text
            );
            self.problems
                .push(Problem::at(name.place, message).hint(format!(
                    "add a computed column: ts TIMESTAMP AS to_timestamp({})",
                    name.text
                )));
            return None;
        }
        if column.field.is_nullable() {
            // A row without event time belongs to no window and would never be late.
            column.field.set_nullable(false);
            let place = self.statement.columns[index].name.place;
            let message = format!(
                "{} is the event time: rows without it are dead letters",
                name.text
            );
            let warning = Problem::at(place, message).hint("write NOT NULL to say so");
            self.warnings.push(warning);
        }
        Some(WatermarkPlan {
            column: index,
            delay: delay?,
        })
    }

    /// `column - INTERVAL '...'`, or `column` for no delay.
    fn delay(&mut self, clause: &WatermarkClause) -> Option<EventSpan> {
        let name = clause.column.text.as_str();
        let is_column = |expression: &SqlExpr| match expression {
            SqlExpr::Identifier(ident) => Name::fold(ident).text == name,
            _ => false,
        };
        let place = place_of(&clause.expression);
        let hint = {
            let shown = lower::quoted(name);
            format!("write WATERMARK FOR {shown} AS {shown} - INTERVAL '5 minutes'")
        };
        let interval = match &clause.expression {
            column if is_column(column) => return Some(EventSpan(0)),
            SqlExpr::BinaryOp {
                left,
                op: BinaryOperator::Minus,
                right,
            } if is_column(left) => right,
            _ => {
                let message = "a watermark is its column less a constant interval";
                self.problems.push(Problem::at(place, message).hint(hint));
                return None;
            }
        };
        let planned = self.expression(interval, &DFSchema::empty())?;
        let message = match tumble::interval_micros(&planned) {
            Some((0, micros)) if micros >= 0 => return Some(EventSpan(micros)),
            Some((0, _)) => "the delay of a watermark is not negative",
            Some(_) => "months differ in length, so they are no delay",
            None => "the delay of a watermark is a constant interval",
        };
        let place = place_of(interval.as_ref());
        self.problems.push(Problem::at(place, message).hint(hint));
        None
    }
}
