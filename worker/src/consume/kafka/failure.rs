//! What an error of the Kafka client means for a job: wait, fail and restart, or ask the user.
//!
//! Pure; called by `reader_thread.rs`. The client retries what is transient by itself; what is listed here as final it
//! would repeat for ever, or skip. A refused password or permission is tried again with the next generation, which resolves
//! references anew: the job was let in when it was submitted, and may be again; until then `job` says what to do.

use millstream_common::error::Kind;
use rdkafka::types::RDKafkaRespErr as Code;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client goes on by itself: tell people, wait.
    Wait,
    /// The position is not in the partition: look what is there.
    Lost,
    /// The reader ends.
    Final {
        /// Who has to act.
        kind: Kind,
        /// What to do.
        advice: &'static str,
    },
}

/// Judges a value of `rd_kafka_resp_err_t`.
pub(super) fn judge(code: i32) -> Verdict {
    if LOST.iter().any(|known| *known as i32 == code) {
        return Verdict::Lost;
    }
    FINAL
        .iter()
        .find(|(codes, _, _)| codes.iter().any(|known| *known as i32 == code))
        .map_or(Verdict::Wait, |(_, kind, advice)| Verdict::Final {
            kind: *kind,
            advice,
        })
}

const LOST: [Code; 2] = [
    Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
    Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
];

const FINAL: [(&[Code], Kind, &str); 7] = [
    (
        &[Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION],
        Kind::User,
        "the brokers have lost records that the job has read: start the job with --fresh to begin again at what is there",
    ),
    (
        &[
            Code::RD_KAFKA_RESP_ERR_INVALID_MSG,
            Code::RD_KAFKA_RESP_ERR__BAD_MSG,
            Code::RD_KAFKA_RESP_ERR__BAD_COMPRESSION,
        ],
        Kind::User,
        "the broker holds a corrupt record: restore the partition from a replica, or delete its records up to behind \
         this offset with kafka-delete-records.sh and start the job with --fresh",
    ),
    (
        &[
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
        ],
        Kind::External,
        "the brokers do not know it now: if it was deleted, create it again and start the job with --fresh",
    ),
    (
        &[
            Code::RD_KAFKA_RESP_ERR__AUTHENTICATION,
            Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,
        ],
        Kind::External,
        "check \"kafka.sasl.username\", \"kafka.sasl.password\" and \"kafka.sasl.mechanism\" of the source",
    ),
    (
        &[
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        ],
        Kind::External,
        "allow the source's user to READ and DESCRIBE the topic",
    ),
    (
        &[Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE],
        Kind::User,
        "a record is larger than the client takes: raise \"kafka.receive.message.max.bytes\"",
    ),
    (
        &[
            Code::RD_KAFKA_RESP_ERR__FATAL,
            Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
            Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE,
        ],
        Kind::External,
        "the client and these brokers do not work together",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(code: Code) -> Option<Kind> {
        match judge(code as i32) {
            Verdict::Wait | Verdict::Lost => None,
            Verdict::Final { kind, .. } => Some(kind),
        }
    }

    #[test]
    fn a_lost_broker_is_waited_for() {
        for code in [
            Code::RD_KAFKA_RESP_ERR__TRANSPORT,
            Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
            Code::RD_KAFKA_RESP_ERR__RESOLVE,
            Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
        ] {
            assert_eq!(kind_of(code), None, "{code:?}");
        }
    }

    #[test]
    fn a_lost_position_is_looked_at() {
        assert_eq!(
            judge(Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32),
            Verdict::Lost
        );
    }

    #[test]
    fn a_job_that_is_let_in_no_more_is_tried_again_and_says_what_to_do() {
        for (code, option) in [
            (Code::RD_KAFKA_RESP_ERR__AUTHENTICATION, "sasl.password"),
            (
                Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
                "sasl.password",
            ),
            (
                Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                "READ and DESCRIBE",
            ),
        ] {
            let Verdict::Final { kind, advice } = judge(code as i32) else {
                panic!("{code:?} is repeated by the client for ever");
            };
            assert_eq!(kind, Kind::External, "{code:?}");
            assert!(advice.contains(option), "{advice}");
        }
    }

    #[test]
    fn a_code_newer_than_the_client_is_waited_for() {
        assert_eq!(judge(32_000), Verdict::Wait);
    }
}
