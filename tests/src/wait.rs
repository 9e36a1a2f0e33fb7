//! Waits until a condition holds, with a deadline.
//!
//! Called by every test that has to wait for a process or a service. A test never sleeps for a time
//! that is hopefully enough: it looks again and again, and ends with what it saw last.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// Short against what is waited for, long against what a look costs.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a look at the condition came to.
pub type Look<T> = Result<T, String>;

/// Looks until the condition holds, and returns what it came to. After `deadline`, fails with
/// `what` was waited for and with the last state, which is what a look that fails returns.
pub async fn until<T, F>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Look<T>>,
{
    let end = Instant::now() + deadline;
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = "not looked at yet".to_owned();
    while Instant::now() < end {
        looks.tick().await;
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(held)) => return Ok(held),
            Ok(Err(state)) => last = state,
            Err(_) => last = format!("the last look did not end; before it: {last}"),
        }
    }
    bail!(
        "{what}: not within {} s; last state: {last}",
        deadline.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_to_hold_ends_the_wait_with_its_value() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(10), || {
            looks += 1;
            let look = if looks < 3 {
                Err("too few".to_owned())
            } else {
                Ok(looks)
            };
            async move { look }
        });
        assert_eq!(found.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn after_the_deadline_the_last_state_is_told() {
        let never = until::<(), _>("the end", Duration::from_secs(1), || async {
            Err("still going".to_owned())
        });
        let text = never.await.unwrap_err().to_string();
        assert_eq!(text, "the end: not within 1 s; last state: still going");
    }
}
