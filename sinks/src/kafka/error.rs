//! What an error of librdkafka means for the sink: wait and fence anew, ask the user, or a newer producer.
//!
//! Pure; called by `client.rs`. What is not listed may pass by itself: the client's own words stand in the cause.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::cluster::ClusterError;

/// Judges an error; `reason` is what the client said about it, if anything.
pub(super) fn judge(error: &KafkaError, reason: Option<&str>) -> ClusterError {
    let text = match error {
        // Its own words hold the value, which may be a secret.
        KafkaError::ClientConfig(_, description, name, _) => {
            return ClusterError::Refused(format!("option \"kafka.{name}\": {description}"));
        }
        KafkaError::Transaction(error) => error.string(),
        other => other.to_string(),
    };
    let text = match reason {
        Some(reason) if !text.contains(reason) => format!("{text}: {reason}"),
        _ => text,
    };
    match code_of(error) {
        Some(code) => judge_code(code, text),
        None => ClusterError::Unavailable(text),
    }
}

fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// Judges a code; `text` is what the client said.
pub(super) fn judge_code(code: Code, text: String) -> ClusterError {
    if FENCED.contains(&code) {
        return ClusterError::Fenced;
    }
    match REFUSED.iter().find(|(codes, _)| codes.contains(&code)) {
        Some((_, advice)) => ClusterError::Refused(format!("{text}: {advice}")),
        None => ClusterError::Unavailable(text),
    }
}

const FENCED: [Code; 3] = [
    Code::Fenced,
    Code::ProducerFenced,
    Code::InvalidProducerEpoch,
];

const REFUSED: [(&[Code], &str); 8] = [
    (
        &[
            Code::Authentication,
            Code::SaslAuthenticationFailed,
            Code::UnsupportedSASLMechanism,
        ],
        "check \"kafka.sasl.username\", \"kafka.sasl.password\" and \"kafka.sasl.mechanism\" of the sink",
    ),
    (
        &[Code::TopicAuthorizationFailed],
        "allow the sink's user to WRITE and DESCRIBE the topic, and to READ, WRITE and CREATE the progress topic",
    ),
    (
        &[Code::TransactionalIdAuthorizationFailed],
        "allow the sink's user to WRITE and DESCRIBE transactional ids that start with millstream.",
    ),
    (
        &[Code::ClusterAuthorizationFailed],
        "create the progress topic by hand, or allow the sink's user to CREATE it",
    ),
    (
        &[Code::InvalidTransactionTimeout],
        "lower transaction_timeout, or raise transaction.max.timeout.ms of the brokers",
    ),
    (
        &[Code::MessageSizeTooLarge],
        "the topic takes less than \"kafka.message.max.bytes\" says: lower it, or raise max.message.bytes of the topic",
    ),
    (
        &[Code::InvalidRecord],
        "a compacted topic takes no record without a key: give the sink a key",
    ),
    (
        &[
            Code::UnsupportedVersion,
            Code::UnsupportedFeature,
            Code::PolicyViolation,
            Code::InvalidConfig,
        ],
        "the sink needs transactions as brokers have them since Kafka 2.5",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: Code) -> ClusterError {
        judge(&KafkaError::MessageProduction(code), None)
    }

    #[test]
    fn a_newer_producer_is_told_from_a_lost_broker_and_from_a_bad_password() {
        assert_eq!(judged(Code::ProducerFenced), ClusterError::Fenced);
        assert_eq!(judged(Code::Fenced), ClusterError::Fenced);
        let lost = judged(Code::BrokerTransportFailure);
        assert!(matches!(lost, ClusterError::Unavailable(_)), "{lost}");
        let refused = judged(Code::SaslAuthenticationFailed);
        assert!(matches!(refused, ClusterError::Refused(_)), "{refused}");
    }

    #[test]
    fn what_the_client_said_stands_in_the_cause() {
        let error = KafkaError::Global(Code::AllBrokersDown);
        let judged = judge(&error, Some("one:9092: connection refused"));
        assert!(judged.to_string().contains("one:9092"), "{judged}");
    }
}
