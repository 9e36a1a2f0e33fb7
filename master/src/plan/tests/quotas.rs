//! Quotas that a sink would use up by what it gathers.

use super::refusals::{CLICKS, refused};
use super::*;

fn sql(options: &str) -> String {
    format!(
        "{CLICKS}CREATE SINK s FROM clicks WITH (connector = 'files', path = '/tmp/out', format = 'json', {options});"
    )
}

#[test]
fn a_quota_that_gathering_uses_up_is_refused_with_one_that_it_does_not() {
    refused(
        &sql("on_quota = 'backpressure', quota_age = «'1 minute'»"),
        "the sink gathers rows for roll_interval (60 seconds), so with this quota_age on_quota = 'backpressure' would act again and again",
        "write quota_age = '120 seconds', or roll_interval = '30 seconds'",
    );
    refused(
        &sql("on_quota = 'suspend', roll_bytes = '1 MiB', quota_bytes = «'1 MiB'»"),
        "the sink gathers up to roll_bytes (1048576 bytes), so with this quota_bytes on_quota = 'suspend' would act again and again",
        "write quota_bytes = '2097152', or roll_bytes = '524288'",
    );
    for fits in [
        "quota_age = '1 minute', quota_bytes = '1 MiB'",
        "on_quota = 'suspend', quota_age = '120 seconds', quota_bytes = '256 MiB'",
        "on_quota = 'suspend', quota_age = '2 seconds', roll_interval = '1 second'",
    ] {
        plan(&sql(fits));
    }
}
