//! Who may open an edge, and what ends one that was opened.
//!
//! Goal: only peers of this job and generation that keep the rules get through, others learn why not. Method: dials that are
//! early, stale or go nowhere, and a peer that speaks Flight by hand.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::{FutureExt, stream};
use millstream_common::ids::WorkerId;
use millstream_common::net::{MemoryNet, NetRef, channel};
use millstream_common::plan::PlanSchema;
use millstream_worker::exchange::flight_client::DialError;
use millstream_worker::exchange::sender::EdgeSender;
use tokio::task::JoinSet;
use tonic::Code;

use super::{BATCH_BYTES, PATIENCE, Receiver, dialer, edge, losses, mailbox, nets, schema, soon};

async fn open_one(
    receiver: &Receiver,
    net: &NetRef,
    generation: u64,
) -> Result<Vec<EdgeSender>, DialError> {
    let (on_lost, _) = losses();
    let mut tasks = JoinSet::new();
    let outgoing = receiver.outgoing(&[edge(0, 0)]);
    dialer(net, generation)
        .open_all(outgoing, &on_lost, &mut tasks)
        .await
}

#[tokio::test]
async fn a_peer_may_dial_before_the_edge_is_registered() {
    for (net, listen) in nets() {
        let mut tasks = JoinSet::new();
        let receiver = Receiver::start(&net, listen, PATIENCE, &mut tasks).await;
        let (deliver, _mailbox) = mailbox();
        let (on_lost, _losses) = losses();
        let mut dial = Box::pin(open_one(&receiver, &net, 1));
        assert!(dial.as_mut().now_or_never().is_none());
        let _registered = receiver.register(1, &[edge(0, 0)], &deliver, &on_lost);
        assert_eq!(soon(dial).await.expect("open").len(), 1);
    }
}

#[tokio::test]
async fn dials_that_nobody_waits_for_are_refused_with_the_reason() {
    for (net, listen) in nets() {
        let mut tasks = JoinSet::new();
        let receiver = Receiver::start(&net, listen, Duration::ZERO, &mut tasks).await;
        let (deliver, _mailbox) = mailbox();
        let (on_lost, _losses) = losses();
        let early = open_one(&receiver, &net, 3).await.err().expect("refused");
        assert!(early.to_string().contains("not started"), "{early}");
        let _registered = receiver.register(3, &[edge(0, 0)], &deliver, &on_lost);
        let stale = open_one(&receiver, &net, 2).await.err().expect("refused");
        assert!(stale.to_string().contains("generation 2"), "{stale}");
        let nobody = Receiver {
            registry: receiver.registry.clone(),
            address: "127.0.0.1:9".to_owned(),
        };
        let nowhere = open_one(&nobody, &net, 3).await.err().expect("refused");
        assert!(nowhere.to_string().contains("127.0.0.1:9"), "{nowhere}");
        assert!(nowhere.kind.is_retryable());
    }
}

/// The second message of a peer that keeps to no rule.
async fn rude_peer(receiver: &Receiver, net: &NetRef, second: FlightData) -> Code {
    let hello = serde_json::json!({
        "job": "clicks",
        "generation": 1,
        "edge": edge(0, 0),
        "worker": "rude",
        "schema": PlanSchema(schema()),
    });
    let descriptor = FlightDescriptor::new_cmd(hello.to_string());
    let messages = [FlightData::new().with_descriptor(descriptor), second];
    let channel = channel(net, &receiver.address).expect("channel");
    let mut answers = FlightServiceClient::new(channel)
        .do_exchange(stream::iter(messages))
        .await
        .expect("the edge is registered")
        .into_inner();
    loop {
        match soon(answers.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_loses_its_edge() {
    let budget = 4 * BATCH_BYTES;
    let no_batch = format!("{{\"batch\":{{\"credit_bytes\":{budget}}}}}");
    let over_budget = format!("{{\"batch\":{{\"credit_bytes\":{}}}}}", budget + 1);
    for frame in [no_batch, over_budget, "nonsense".to_owned()] {
        let net: NetRef = Arc::new(MemoryNet::default());
        let mut tasks = JoinSet::new();
        let receiver = Receiver::start(&net, "worker:0", PATIENCE, &mut tasks).await;
        let (deliver, mut mailbox) = mailbox();
        let (on_lost, mut losses) = losses();
        let _registered = receiver.register(1, &[edge(0, 0)], &deliver, &on_lost);
        let second = FlightData::new().with_app_metadata(frame);
        assert_eq!(rude_peer(&receiver, &net, second).await, Code::Aborted);
        let lost = soon(losses.recv()).await.expect("reported");
        assert_eq!(lost.peer, WorkerId::from("rude"));
        assert!(mailbox.try_recv().is_err());
    }
}

#[tokio::test]
async fn other_methods_of_flight_are_refused_by_name() {
    let net: NetRef = Arc::new(MemoryNet::default());
    let mut tasks = JoinSet::new();
    let receiver = Receiver::start(&net, "worker:0", PATIENCE, &mut tasks).await;
    let channel = channel(&net, &receiver.address).expect("channel");
    let mut client = FlightServiceClient::new(channel);
    let refused = client.get_schema(FlightDescriptor::default()).await;
    let refused = refused.expect_err("refused");
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("GetSchema"));
    let refused = client.do_get(Ticket::default()).await;
    let refused = refused.expect_err("a preview needs a ticket");
    assert_eq!(refused.code(), Code::InvalidArgument);
}
