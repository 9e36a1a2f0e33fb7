//! The way to the master that reigns: all addresses are asked, one that hangs hides no other, and a takeover is waited for.
//!
//! Part of the client. Failure: each address with what went wrong there, or what the master misses.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use millstream_proto::v1::{self, control_client};

use super::{ANSWER_BYTES_MAX, ControlClient, Error, is_denial};
use crate::control::ControlError;
use crate::grpc;
use crate::net::{self, Channel, NetRef};

/// An address has this long to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The others have this long once one has refused.
const OTHERS_DEADLINE: Duration = Duration::from_secs(1);
/// A standby reigns within this once the active master is gone; the usual takeover takes two seconds.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a master during a takeover.
const TAKEOVER_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// What a master is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers for the cluster.
    Active,
    /// It would take over.
    Standby {
        /// The address of the active one, as far as it knows.
        active: Option<String>,
    },
    /// It does not say to whom shows no token or certificate.
    Guarded,
}

impl ControlClient {
    /// Connects as [`Self::connect`] does; as long as masters answer and none of them reigns, a takeover is waited for.
    pub async fn find(net: NetRef, addresses: &str) -> Result<Self, Error> {
        let mut vacant = match Self::connect(net.clone(), addresses).await {
            Err(error @ Error::Vacant { .. }) => error,
            settled => return settled,
        };
        let look = async {
            loop {
                tokio::time::sleep(TAKEOVER_RETRY_INTERVAL).await;
                match Self::connect(net.clone(), addresses).await {
                    Err(error @ Error::Vacant { .. }) => vacant = error,
                    settled => return settled,
                }
            }
        };
        match tokio::time::timeout(TAKEOVER_PATIENCE, look).await {
            Ok(settled) => settled,
            Err(_) => Err(vacant),
        }
    }

    /// What the master at `address` is; an error says why it does not answer.
    pub async fn role(net: NetRef, address: &str) -> Result<Role, String> {
        match Self::try_address(net, address.to_owned()).await {
            Ok(_) => Ok(Role::Active),
            Err(refusal) if refusal.stands_by => Ok(Role::Standby {
                active: refusal.active,
            }),
            Err(refusal) if refusal.is_denied => Ok(Role::Guarded),
            Err(refusal) => Err(refusal.cause),
        }
    }

    /// Connects to the one of `addresses` (separated by commas) that answers as the active master. All are asked at once, for one
    /// that hangs must not hide the next; where one that stands by names the active one, that is asked too.
    pub async fn connect(net: NetRef, addresses: &str) -> Result<Self, Error> {
        let named = addresses.split(',').map(str::trim);
        let mut asked: Vec<String> = Vec::new();
        for address in named.filter(|address| !address.is_empty()) {
            if !asked.iter().any(|known| known == address) {
                asked.push(address.to_owned());
            }
        }
        let mut tries: FuturesUnordered<_> = asked
            .iter()
            .map(|address| Self::try_address(net.clone(), address.clone()))
            .collect();
        let mut causes = Vec::new();
        let mut is_vacant = false;
        // Once one has answered, one that hangs is not waited for as long as if it were the only one.
        let patience = |refused: usize| match refused {
            0 => CONNECT_DEADLINE,
            _ => OTHERS_DEADLINE,
        };
        while let Ok(Some(tried)) = tokio::time::timeout(patience(causes.len()), tries.next()).await
        {
            let refusal = match tried {
                Ok((client, address)) => {
                    return Ok(Self {
                        client,
                        address,
                        net,
                        addresses: asked.join(","),
                    });
                }
                Err(refusal) => refusal,
            };
            if let Some(active) = refusal.active
                && !asked.contains(&active)
            {
                asked.push(active.clone());
                tries.push(Self::try_address(net.clone(), active));
            }
            if refusal.is_denied {
                // The others would ask for the same.
                return Err(Error::Denied {
                    address: refusal.address,
                    cause: refusal.cause,
                });
            }
            is_vacant |= refusal.stands_by;
            causes.push((refusal.address, refusal.cause));
        }
        let told = asked.iter().map(|address| {
            let cause = causes.iter().find(|(refused, _)| refused == address);
            let cause = cause.map_or("no answer", |(_, cause)| cause);
            format!("{address} ({cause})")
        });
        let causes = match asked.is_empty() {
            true => "no address is given".to_owned(),
            false => told.collect::<Vec<_>>().join(", "),
        };
        Err(match is_vacant {
            true => Error::Vacant { causes },
            false => Error::Unreachable { causes },
        })
    }

    /// A connection alone proves little: the smallest call shows that an active master is behind it.
    async fn try_address(
        net: NetRef,
        address: String,
    ) -> Result<(control_client::ControlClient<Channel>, String), Refusal> {
        let refusal = |cause: String| Refusal {
            address: address.clone(),
            cause,
            stands_by: false,
            is_denied: false,
            active: None,
        };
        let channel = net::patient_channel(&net, &address)
            .map_err(|error| refusal(crate::error::chain(&error)))?;
        let client =
            control_client::ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut probe = client.clone();
        let answer = probe.list_workers(v1::ListWorkersRequest {});
        match tokio::time::timeout(CONNECT_DEADLINE, answer).await {
            Ok(Ok(_)) => Ok((client, address)),
            Ok(Err(status)) => Err(match grpc::from_status(&status) {
                Some(ControlError::Unavailable { cause, active }) => Refusal {
                    stands_by: true,
                    active,
                    ..refusal(cause)
                },
                None if is_denial(&status) => Refusal {
                    is_denied: true,
                    ..refusal(status.message().to_owned())
                },
                _ => refusal(grpc::in_plain_words(&status)),
            }),
            Err(_) => {
                let cause = format!("no answer in {} s", CONNECT_DEADLINE.as_secs());
                Err(refusal(cause))
            }
        }
    }
}

/// Why an address is not that of the active master.
struct Refusal {
    address: String,
    cause: String,
    /// It is a master, but does not reign now.
    stands_by: bool,
    /// It lets this caller not in.
    is_denied: bool,
    /// Where one that stands by sends its callers.
    active: Option<String>,
}
