//! The rules of branches: what filters and projections give, what becomes of rows on which they fail, and that no row is
//! lost on the way.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int8Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type};
use datafusion::logical_expr::Expr;
use datafusion::prelude::{cast, col, lit};
use millstream_common::ids::OutputIndex;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{
    Branch, NamedExpression, OP_COLUMN, OP_DELETE, OP_UPSERT, PlanExpression, PlanSchema, Port,
    Target, Transform,
};
use proptest::prelude::*;

use super::*;

fn encoded(expression: Expr) -> PlanExpression {
    let text = expression.to_string();
    PlanExpression::encode(&expression, text).expect("encode")
}

fn filter(expression: Expr) -> Transform {
    Transform::Filter(encoded(expression))
}

fn project(columns: Vec<(&str, Expr)>) -> Transform {
    let named = |(name, expression): (&str, Expr)| NamedExpression {
        name: name.to_owned(),
        expression: encoded(expression),
    };
    Transform::Project(columns.into_iter().map(named).collect())
}

fn fields(columns: &[(&str, DataType)]) -> PlanSchema {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    PlanSchema::from_fields(columns.iter().map(field).collect())
}

/// The rows of the source: `n BIGINT, text TEXT`.
fn input() -> PlanSchema {
    fields(&[("n", DataType::Int64), ("text", DataType::Utf8)])
}

fn batch(rows: &[(i64, &str)]) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(rows.iter().map(|(n, _)| *n));
    let texts = StringArray::from_iter_values(rows.iter().map(|(_, text)| *text));
    RecordBatch::try_new(input().0, vec![Arc::new(numbers), Arc::new(texts)]).expect("batch")
}

fn branch(port: Port, transforms: Vec<Transform>, schema: PlanSchema) -> Branch {
    Branch {
        port,
        keeps_time: true,
        transforms,
        schema,
        target: Target::Output(OutputIndex(0)),
    }
}

fn try_build(branch: &Branch) -> Result<BranchProgram, TransformError> {
    BranchProgram::build(branch, &input().0, &Functions::new())
}

fn program(transforms: Vec<Transform>, schema: PlanSchema) -> BranchProgram {
    try_build(&branch(Port::Rows, transforms, schema)).expect("build")
}

fn run(program: &BranchProgram, batch: &RecordBatch) -> Transformed {
    program.run(batch, None).expect("run")
}

fn numbers(transformed: &Transformed) -> Vec<i64> {
    match &transformed.batch {
        Some(batch) => batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec(),
        None => Vec::new(),
    }
}

fn failed_rows(transformed: &Transformed) -> Vec<usize> {
    transformed.failed.iter().map(|failed| failed.row).collect()
}

#[test]
fn a_branch_without_transforms_passes_its_rows_on_without_copying() {
    let rows = batch(&[(1, "a"), (2, "b")]);
    let result = run(&program(vec![], input()), &rows);
    let passed = result.batch.expect("rows");
    assert_eq!(passed, rows);
    assert!(Arc::ptr_eq(passed.column(0), rows.column(0)));
}

#[test]
fn filters_stand_in_front_of_the_projection() {
    let transforms = vec![
        filter(col("n").gt(lit(1_i64))),
        filter(col("text").not_eq(lit("c"))),
        project(vec![("double", col("n") * lit(2_i64))]),
        filter(col("double").lt(lit(8_i64))),
    ];
    let program = program(transforms, fields(&[("double", DataType::Int64)]));
    let rows = batch(&[(1, "a"), (2, "b"), (3, "c"), (3, "d"), (4, "e")]);
    let result = run(&program, &rows);
    assert_eq!(numbers(&result), [4, 6]);
    assert_eq!(result.filtered_count, 3);
    assert!(result.failed.is_empty());
}

#[test]
fn rows_without_columns_are_still_counted() {
    let transforms = vec![filter(col("n").gt(lit(1_i64))), project(vec![])];
    let program = program(transforms, fields(&[]));
    let result = run(&program, &batch(&[(1, "a"), (2, "b"), (3, "c")]));
    assert_eq!(result.batch.expect("rows").num_rows(), 2);
}

#[test]
fn a_batch_of_which_nothing_passes_is_no_batch() {
    let program = program(vec![filter(col("n").lt(lit(0_i64)))], input());
    let result = run(&program, &batch(&[(1, "a"), (2, "b")]));
    assert!(result.batch.is_none());
    assert_eq!(result.filtered_count, 2);
    assert!(run(&program, &batch(&[])).batch.is_none());
}

#[test]
fn a_row_on_which_an_expression_fails_is_returned_and_the_others_go_on() {
    let quotient = lit(10_i64) / col("n");
    let program = program(
        vec![project(vec![("quotient", quotient)])],
        fields(&[("quotient", DataType::Int64)]),
    );
    let result = run(
        &program,
        &batch(&[(5, ""), (0, ""), (2, ""), (1, ""), (0, "")]),
    );
    assert_eq!(numbers(&result), [2, 5, 10]);
    assert_eq!(failed_rows(&result), [1, 4]);
    let reason = &result.failed[0].reason;
    assert!(reason.starts_with("column quotient: "), "{reason}");
    assert!(reason.ends_with("Divide by zero error"), "{reason}");
}

#[test]
fn a_bad_cast_fails_its_row() {
    let parsed = cast(col("text"), DataType::Int64);
    let program = program(
        vec![project(vec![("parsed", parsed)])],
        fields(&[("parsed", DataType::Int64)]),
    );
    let result = run(&program, &batch(&[(0, "7"), (0, "seven"), (0, "8")]));
    assert_eq!(numbers(&result), [7, 8]);
    assert_eq!(failed_rows(&result), [1]);
    assert!(result.failed[0].reason.contains("seven"));
}

#[test]
fn null_in_a_column_that_must_not_be_fails_its_row() {
    let wanted = PlanSchema::from_fields(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]);
    let numbers = Int64Array::from(vec![Some(1), None, Some(3)]);
    let texts = StringArray::from(vec!["a", "b", "c"]);
    let columns: Vec<Arc<dyn Array>> = vec![Arc::new(numbers), Arc::new(texts)];
    let rows = RecordBatch::try_new(input().0, columns).expect("batch");
    let result = run(&program(vec![], wanted.clone()), &rows);
    assert_eq!(failed_rows(&result), [1]);
    let passed = result.batch.expect("rows");
    assert_eq!(passed.num_rows(), 2);
    assert_eq!(passed.schema(), wanted.0);
}

#[test]
fn a_condition_guards_what_stands_behind_it() {
    let guard = col("n").not_eq(lit(0_i64));
    let guarded = (lit(10_i64) / col("n")).gt(lit(1_i64));
    let in_one = vec![filter(guard.clone().and(guarded.clone()))];
    let in_two = vec![filter(guard), filter(guarded)];
    for transforms in [in_one, in_two] {
        let rows = batch(&[(0, ""), (1, ""), (0, ""), (20, ""), (0, "")]);
        let result = run(&program(transforms, input()), &rows);
        assert_eq!(numbers(&result), [1]);
        assert_eq!(result.filtered_count, 4);
        assert!(result.failed.is_empty());
    }
}

#[test]
fn late_rows_are_left_out_where_time_is_kept() {
    let quotient = vec![project(vec![("quotient", lit(10_i64) / col("n"))])];
    let mut branch = branch(
        Port::Rows,
        quotient,
        fields(&[("quotient", DataType::Int64)]),
    );
    let rows = batch(&[(0, "late"), (1, ""), (0, ""), (2, "late"), (5, "")]);
    let late = BooleanArray::from(vec![Some(true), Some(false), None, Some(true), Some(false)]);
    let keeps = try_build(&branch).expect("build");
    let result = keeps.run(&rows, Some(&late)).expect("run");
    assert_eq!(result.late_count, 2);
    assert_eq!(numbers(&result), [10, 2]);
    assert_eq!(failed_rows(&result), [2]);

    branch.keeps_time = false;
    let result = try_build(&branch).expect("build").run(&rows, Some(&late));
    let result = result.expect("run");
    assert_eq!(result.late_count, 0);
    assert_eq!(failed_rows(&result), [0, 2]);
}

/// Rows of the port `Changes`.
fn changes(rows: &[(i64, &str, i8)]) -> RecordBatch {
    let plain: Vec<(i64, &str)> = rows.iter().map(|(n, text, _)| (*n, *text)).collect();
    let plain = batch(&plain);
    let op = Int8Array::from_iter_values(rows.iter().map(|(_, _, op)| *op));
    let fields = plain.schema().fields().iter().cloned().collect::<Vec<_>>();
    let op_field = Arc::new(Field::new(OP_COLUMN, DataType::Int8, false));
    let schema = arrow::datatypes::Schema::new([fields, vec![op_field]].concat());
    let columns = [plain.columns(), &[Arc::new(op)]].concat();
    RecordBatch::try_new(Arc::new(schema), columns).expect("batch")
}

fn ops(transformed: &Transformed) -> Vec<i8> {
    let batch = transformed.batch.as_ref().expect("rows");
    let op = batch.column_by_name(OP_COLUMN).expect("column");
    op.as_primitive::<Int8Type>().values().to_vec()
}

#[test]
fn a_filter_over_changes_makes_deletes_of_the_rows_that_do_not_pass() {
    let transforms = vec![
        filter(col("n").gt(lit(1_i64))),
        project(vec![("n", col("n"))]),
    ];
    let branch = branch(Port::Changes, transforms, fields(&[("n", DataType::Int64)]));
    let program = try_build(&branch).expect("build");
    let rows = changes(&[(1, "", OP_UPSERT), (2, "", OP_UPSERT), (3, "", OP_DELETE)]);
    let result = run(&program, &rows);
    assert_eq!(numbers(&result), [1, 2, 3]);
    assert_eq!(ops(&result), [OP_DELETE, OP_UPSERT, OP_DELETE]);
    assert_eq!(result.filtered_count, 0);
    let names: Vec<&String> = program.schema().fields().iter().map(|f| f.name()).collect();
    assert_eq!(names, ["n", OP_COLUMN]);
}

#[test]
fn what_fails_in_a_delete_beside_its_key_is_null() {
    let transforms = vec![
        filter(col("n").not_eq(lit(0_i64))),
        project(vec![("text", col("text")), ("q", lit(10_i64) / col("n"))]),
    ];
    let schema = fields(&[("text", DataType::Utf8), ("q", DataType::Int64)]);
    let program = try_build(&branch(Port::Changes, transforms, schema)).expect("build");
    let rows = changes(&[
        (5, "a", OP_UPSERT),
        (0, "b", OP_UPSERT),
        (2, "c", OP_UPSERT),
    ]);
    let result = run(&program, &rows);
    assert!(result.failed.is_empty());
    assert_eq!(ops(&result), [OP_UPSERT, OP_DELETE, OP_UPSERT]);
    let batch = result.batch.expect("rows");
    assert_eq!(
        batch.column(0).as_ref(),
        &StringArray::from(vec!["a", "b", "c"])
    );
    let quotients = Int64Array::from(vec![Some(2), None, Some(5)]);
    assert_eq!(batch.column(1).as_ref(), &quotients);
}

#[test]
fn a_column_of_another_layout_is_cast_and_of_another_type_refused() {
    let same = vec![project(vec![("text", col("text"))])];
    let wanted = fields(&[("text", DataType::Utf8View)]);
    let result = run(&program(same.clone(), wanted.clone()), &batch(&[(1, "a")]));
    assert_eq!(result.batch.expect("rows").schema(), wanted.0);

    let refused = try_build(&branch(
        Port::Rows,
        same.clone(),
        fields(&[("text", DataType::Int64)]),
    ));
    assert!(matches!(refused, Err(TransformError::Columns { .. })));
    let other_name = fields(&[("t", DataType::Utf8)]);
    let refused = try_build(&branch(Port::Rows, same, other_name));
    assert!(matches!(refused, Err(TransformError::Columns { .. })));
}

#[test]
fn a_filter_that_is_no_condition_is_refused() {
    let transforms = vec![filter(col("n") + lit(1_i64))];
    let refused = try_build(&branch(Port::Rows, transforms, input()));
    assert!(matches!(refused, Err(TransformError::NotBoolean { .. })));
}

#[test]
fn an_unknown_column_is_refused() {
    let transforms = vec![
        filter(col("n").gt(lit(1_i64))),
        project(vec![("m", col("m"))]),
    ];
    let refused = try_build(&branch(
        Port::Rows,
        transforms,
        fields(&[("m", DataType::Int64)]),
    ));
    assert!(matches!(refused, Err(TransformError::Expression(_))));
}

proptest! {
    #[test]
    fn every_row_goes_on_or_fails_or_is_filtered_or_late(
        rows in prop::collection::vec((-3_i64..10, any::<bool>()), 0..300),
    ) {
        let transforms = vec![
            filter(col("n").lt(lit(8_i64))),
            project(vec![("q", lit(100_i64) / col("n"))]),
        ];
        let program = program(transforms, fields(&[("q", DataType::Int64)]));
        let numbers_in: Vec<(i64, &str)> = rows.iter().map(|(n, _)| (*n, "")).collect();
        let late = BooleanArray::from_iter(rows.iter().map(|(_, late)| Some(*late)));
        let result = program.run(&batch(&numbers_in), Some(&late)).expect("run");
        let on_time = || rows.iter().enumerate().filter(|(_, (_, late))| !late);
        let passing = on_time().filter(|(_, (n, _))| *n < 8);
        let expected: Vec<i64> = passing
            .clone()
            .filter(|(_, (n, _))| *n != 0)
            .map(|(_, (n, _))| 100 / n)
            .collect();
        let failing: Vec<usize> = passing
            .filter(|(_, (n, _))| *n == 0)
            .map(|(row, _)| row)
            .collect();
        prop_assert_eq!(numbers(&result), expected);
        prop_assert_eq!(failed_rows(&result), failing);
        prop_assert_eq!(result.late_count, rows.iter().filter(|(_, late)| *late).count());
        let passed = result.batch.as_ref().map_or(0, RecordBatch::num_rows);
        let accounted = passed + result.failed.len() + result.filtered_count + result.late_count;
        prop_assert_eq!(accounted, rows.len());
    }
}
