//! Leaves out stages that no output reads, and columns that nothing behind a stage reads.
//!
//! A source sends on only the columns that are used, so that fewer bytes are exchanged and less state is kept. What the
//! columns of an aggregate mean is part of its state, so an aggregate keeps all of them.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use millstream_common::plan::Port;

use crate::plan::graph::{DraftBranch, DraftHead, DraftKind, DraftTarget, Graph, Step};

/// Drops keyed stages whose rows reach no output, and renumbers the others. Dead letters alone keep no stage: they are of rows
/// on their way to somebody. Gives the new number of each stage that is left.
pub(super) fn unread_stages(graph: &mut Graph) -> Vec<Option<usize>> {
    let mut read = vec![false; graph.stages.len()];
    for (index, stage) in graph.stages.iter_mut().enumerate().rev() {
        stage.branches.retain(|branch| match branch.target {
            DraftTarget::Exchange(target) => read[target],
            DraftTarget::Output(_) => true,
        });
        let mut branches = stage.branches.iter();
        read[index] = match stage.head {
            DraftHead::Source(_) | DraftHead::Sink(_) => true,
            DraftHead::Keyed { .. } => branches.any(|branch| branch.port != Port::DeadLetters),
        };
    }
    let mut kept_count = 0;
    let renumbered: Vec<usize> = read
        .iter()
        .map(|read| {
            let number = kept_count;
            kept_count += usize::from(*read);
            number
        })
        .collect();
    let mut kept = read.iter();
    graph.stages.retain(|_| *kept.next().unwrap_or(&false));
    for branch in graph
        .stages
        .iter_mut()
        .flat_map(|stage| &mut stage.branches)
    {
        if let DraftTarget::Exchange(target) = &mut branch.target {
            *target = renumbered[*target];
        }
    }
    let numbers = renumbered.into_iter().zip(read);
    numbers
        .map(|(number, is_read)| is_read.then_some(number))
        .collect()
}

/// Drops columns from branches and from the rows of DISTINCT, last stage first.
pub(super) fn unread_columns(graph: &mut Graph) {
    for index in (0..graph.stages.len()).rev() {
        let (before, behind) = graph.stages.split_at_mut(index + 1);
        let stage = &mut before[index];
        let mut read = BTreeSet::new();
        for branch in &mut stage.branches {
            if let DraftTarget::Exchange(target) = branch.target {
                let wanted = &behind[target - index - 1].head;
                keep_input(branch, wanted);
            }
            let names = prune_branch(branch);
            if branch.port != Port::DeadLetters {
                read.extend(names);
            }
        }
        if let DraftHead::Keyed {
            input,
            kind: DraftKind::Distinct { keys, time },
            ..
        } = &mut stage.head
        {
            let is_kept: Vec<bool> = (0..input.len())
                .map(|column| {
                    keys.contains(&column)
                        || *time == Some(column)
                        || read.contains(input[column].name())
                })
                .collect();
            let position = |column: usize| is_kept[..column].iter().filter(|kept| **kept).count();
            for key in keys.iter_mut() {
                *key = position(*key);
            }
            *time = time.map(position);
            retain_by(input, &is_kept);
            retain_by(&mut stage.columns, &is_kept);
        }
    }
}

fn retain_by<T>(items: &mut Vec<T>, is_kept: &[bool]) {
    let mut kept = is_kept.iter();
    items.retain(|_| *kept.next().unwrap_or(&true));
}

/// Leaves only the columns that the stage behind the exchange takes.
fn keep_input(branch: &mut DraftBranch, head: &DraftHead) {
    if let DraftHead::Keyed {
        input,
        kind: DraftKind::Distinct { .. },
        ..
    } = head
    {
        branch.columns.retain(|column| {
            input
                .iter()
                .any(|field| field.name() == column.field.name())
        });
    }
}

/// Drops what later steps do not read; gives the names read from the port.
fn prune_branch(branch: &mut DraftBranch) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    for column in &branch.columns {
        add_names(&column.expression, &mut read);
    }
    for step in branch.steps.iter_mut().rev() {
        match step {
            Step::Filter(condition) => add_names(condition, &mut read),
            Step::Project(columns) => {
                columns.retain(|column| read.contains(column.field.name()));
                read.clear();
                for column in columns {
                    add_names(&column.expression, &mut read);
                }
            }
        }
    }
    read
}

pub(super) fn add_names(expression: &Expr, names: &mut BTreeSet<String>) {
    let visited = expression.apply(|expression| {
        if let Expr::Column(column) = expression {
            names.insert(column.name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the closure returns no error");
}
