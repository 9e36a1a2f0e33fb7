//! Reaching a server: which address is taken, what a takeover costs a caller, what a generic client finds, and how a server goes down.
//!
//! With the scripted master of the tests around it.

use super::*;

#[tokio::test]
async fn the_first_address_that_answers_is_taken_and_silence_names_every_address() {
    let served = serve_script().await;
    let addresses = format!("gone:1, {ADDRESS}");
    let client = ControlClient::connect(served.net.clone(), &addresses)
        .await
        .unwrap();
    assert_eq!(client.address(), ADDRESS);
    let error = ControlClient::connect(served.net.clone(), "gone:1,gone:2")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("gone:1 (nobody listens at gone:1)"),
        "{error}"
    );
    assert!(
        error.contains("gone:2") && error.contains("millstream master"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_waits_for_a_takeover_as_long_as_a_master_stands_by() {
    let served = serve_script().await;
    served.script.standing_by.store(4, Ordering::Relaxed);
    let addresses = format!("gone:1,{ADDRESS}");
    let role = ControlClient::role(served.net.clone(), ADDRESS).await;
    let active = Some("gone:1".to_owned());
    assert_eq!(role, Ok(client::Role::Standby { active }));
    let refused = ControlClient::connect(served.net.clone(), &addresses).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, client::Error::Vacant { .. }), "{refused}");
    assert!(refused.to_string().contains("it stands by"), "{refused}");
    let found = ControlClient::find(served.net.clone(), &addresses).await;
    assert_eq!(found.unwrap().address(), ADDRESS);
    assert_eq!(served.script.standing_by.load(Ordering::Relaxed), 0);
    let role = ControlClient::role(served.net.clone(), ADDRESS).await;
    assert_eq!(role, Ok(client::Role::Active));
}

#[tokio::test]
async fn a_submission_whose_answer_is_lost_is_tried_again_as_the_same_one() {
    let served = serve_script().await;
    served.script.lost_answers.store(2, Ordering::Relaxed);
    let client = connect(&served).await;
    let submitted = client.submit(request("clicks", "SELECT 1")).await;
    assert_eq!(submitted.unwrap().job, view(JobState::Waiting));
    client.submit(request("clicks", "SELECT 1")).await.unwrap();
    let tries = served.script.tries.lock().unwrap().clone();
    let [first, second, third, other] = tries.as_slice() else {
        panic!("{tries:?}");
    };
    assert!(first.is_some() && first == second && second == third);
    assert_ne!(other, first, "another submission");
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_no_master_answers_says_that_it_may_be_made_again() {
    let served = serve_script().await;
    served
        .script
        .lost_answers
        .store(usize::MAX, Ordering::Relaxed);
    let client = connect(&served).await;
    let unsettled = client.submit(request("clicks", "SELECT 1")).await;
    let unsettled = unsettled.unwrap_err().to_string();
    assert!(
        unsettled.contains("submit it again") && unsettled.contains("it is ending"),
        "{unsettled}"
    );
}

#[tokio::test]
async fn a_generic_client_finds_the_services_and_their_health() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let served = serve_script().await;
    let channel = net::channel(&served.net, ADDRESS).unwrap();
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(futures::stream::iter([question]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = services.service.into_iter().map(|s| s.name).collect();
    for name in ["millstream.v1.Control", "grpc.health.v1.Health"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let health = tonic_health::pb::health_client::HealthClient::new(channel)
        .check(tonic_health::pb::HealthCheckRequest {
            service: "millstream.v1.Control".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        health.status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );
}

#[tokio::test]
async fn the_server_goes_down_although_a_link_hangs() {
    let mut served = serve_script().await;
    let channel = net::channel(&served.net, ADDRESS).unwrap();
    let mut worker = v1::worker_link_client::WorkerLinkClient::new(channel);
    let frames = futures::stream::pending::<v1::WorkerFrame>();
    let _link = worker.attach(frames).await.unwrap();
    served.stop.send(()).unwrap();
    let ended = served.server.join_next().await.unwrap().unwrap();
    assert!(ended.is_ok());
}
