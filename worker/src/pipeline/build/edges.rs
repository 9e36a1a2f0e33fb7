//! The edges of a pipeline that is being built: incoming ones are registered, outgoing ones dialled, and each branch gets its senders.
//!
//! Called by `mod.rs`, in this order: two workers that build at the same time do not wait for each other. Failure: a peer that
//! cannot be reached, or a plan that leads rows where none are taken, ends the pipeline.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{StageIndex, TaskId};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{JobPlan, KeyedPlan, StageHead, Target};

use super::super::wiring::Wiring;
use super::{Builder, broken, deliver_to};
use crate::exchange::credit::edge_budget_bytes;
use crate::exchange::flight_client::{ANSWER_WAIT, ExchangeDialer, OutgoingEdge};
use crate::exchange::message::EdgeId;
use crate::exchange::registry::{IncomingEdge, RegisteredEdges};
use crate::exchange::sender::{EdgeSender, ExchangeSender};
use crate::operator::key_hash::KeyHasher;
use crate::operator::{PartialAggregate, edge_schema};

impl Builder<'_> {
    pub(super) fn register(&self, wiring: &Wiring<'_>) -> Result<RegisteredEdges, Failure> {
        let mut incoming = Vec::new();
        for (task, mailbox) in &self.mailboxes {
            let inputs = wiring.inputs_of(*task);
            let budget_bytes = edge_budget_bytes(inputs.len());
            for edge in inputs
                .into_iter()
                .filter(|edge| wiring.remote_worker(edge.from).is_some())
            {
                incoming.push(IncomingEdge {
                    edge,
                    schema: self.edge_schema(task.stage)?,
                    budget_bytes,
                    deliver: deliver_to(mailbox.clone()),
                });
            }
        }
        let at = self.state.at();
        let registry = &self.state.config.edges;
        registry
            .register(&at.job, at.generation, incoming, self.on_lost())
            .map_err(|error| broken("exchange", &error))
    }

    /// What a stage that takes rows of others does with them.
    fn keyed(&self, stage: StageIndex) -> Result<&KeyedPlan, Failure> {
        match &self.plan.stages[stage.index()].head {
            StageHead::Keyed(keyed) => Ok(keyed),
            StageHead::Source(_) => Err(takes_none(stage)),
        }
    }

    fn edge_schema(&self, stage: StageIndex) -> Result<SchemaRef, Failure> {
        let schema = self.edge_schemas.get(&stage);
        schema.cloned().ok_or_else(|| takes_none(stage))
    }

    pub(super) async fn dial(&mut self, wiring: &Wiring<'_>) -> Result<(), Failure> {
        let outgoing = self.outgoing(wiring)?;
        let at = self.state.at().clone();
        let dialer = ExchangeDialer {
            net: self.state.config.worker.exchange_net.clone(),
            worker: self.state.config.worker.name.clone(),
            job: at.job,
            generation: at.generation,
            answer_wait: ANSWER_WAIT,
        };
        let on_lost = self.on_lost();
        let senders = dialer
            .open_all(outgoing, &on_lost, &mut self.state.streams)
            .await
            .map_err(|error| Failure::new(error.kind, "exchange", &error))?;
        self.remote = senders
            .into_iter()
            .map(|sender| (sender.edge(), sender))
            .collect();
        Ok(())
    }

    fn outgoing(&self, wiring: &Wiring<'_>) -> Result<Vec<OutgoingEdge>, Failure> {
        let addresses = &self.state.config.deploy.flight_addresses;
        let mut outgoing = Vec::new();
        for from in wiring.local_tasks() {
            for edge in exchange_edges(&self.plan, wiring, from) {
                let Some(peer) = wiring.remote_worker(edge.to) else {
                    continue;
                };
                let address = addresses.get(peer).ok_or_else(|| Failure {
                    kind: Kind::Internal,
                    origin: "exchange".to_owned(),
                    cause: format!("the deployment names no address of worker {peer}"),
                })?;
                outgoing.push(OutgoingEdge {
                    edge,
                    peer: peer.clone(),
                    address: address.clone(),
                    schema: self.edge_schema(edge.to.stage)?,
                });
            }
        }
        Ok(outgoing)
    }

    pub(super) fn exchange(
        &mut self,
        wiring: &Wiring<'_>,
        from: TaskId,
        branch: u32,
        stage: StageIndex,
    ) -> Result<(ExchangeSender, Option<PartialAggregate>), Failure> {
        let mut edges = Vec::new();
        for to in wiring.tasks_of(stage) {
            let edge = EdgeId { from, to, branch };
            let sender = match self.mailboxes.get(&to) {
                Some(mailbox) => {
                    let budget_bytes = edge_budget_bytes(wiring.inputs_of(to).len());
                    EdgeSender::local(edge, budget_bytes, deliver_to(mailbox.clone()))
                }
                None => self.remote.remove(&edge).ok_or_else(|| Failure {
                    kind: Kind::Internal,
                    origin: "exchange".to_owned(),
                    cause: format!("edge {edge} was not dialled"),
                })?,
            };
            edges.push(sender);
        }
        let keyed = self.keyed(stage)?;
        let partial = PartialAggregate::new(keyed, &self.state.config.functions)
            .map_err(|error| broken("exchange", &error))?;
        // The columns that rows are sent by are the first of either.
        let schema = partial
            .as_ref()
            .map_or(&keyed.input.0, PartialAggregate::schema);
        let hasher = KeyHasher::new(schema, &keyed.key_columns)
            .map_err(|error| broken("exchange", &error))?;
        Ok((ExchangeSender::new(Box::new(hasher), edges), partial))
    }
}

fn takes_none(stage: StageIndex) -> Failure {
    Failure {
        kind: Kind::Internal,
        origin: "exchange".to_owned(),
        cause: format!("stage {stage} takes no rows from other stages"),
    }
}

/// By keyed stage, the schema of what travels to its tasks.
pub(super) fn schemas(
    plan: &JobPlan,
    functions: &Functions,
) -> Result<BTreeMap<StageIndex, SchemaRef>, Failure> {
    let keyed = (0..)
        .zip(&plan.stages)
        .filter_map(|(index, stage)| match &stage.head {
            StageHead::Keyed(keyed) => Some((StageIndex(index), keyed)),
            StageHead::Source(_) => None,
        });
    keyed
        .map(|(stage, keyed)| {
            let schema =
                edge_schema(keyed, functions).map_err(|error| broken("exchange", &error))?;
            Ok((stage, schema))
        })
        .collect()
}

/// The edges of a task to the tasks of other stages.
fn exchange_edges<'a>(
    plan: &'a JobPlan,
    wiring: &'a Wiring<'_>,
    from: TaskId,
) -> impl Iterator<Item = EdgeId> + 'a {
    let branches = plan.stages[from.stage.index()].branches.iter().enumerate();
    branches.flat_map(move |(index, branch)| {
        let tasks: Vec<TaskId> = match branch.target {
            Target::Exchange(stage) => wiring.tasks_of(stage).collect(),
            Target::Output(_) => Vec::new(),
        };
        let branch = index as u32;
        tasks.into_iter().map(move |to| EdgeId { from, to, branch })
    })
}
