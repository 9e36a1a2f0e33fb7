//! The pages as functions: nothing of a user's becomes markup, long lists are cut into pages, and figures stand where they belong.

use millstream_common::control::{
    DeadLetterView, JobState, JobView, LastFailure, SplitWatermarkView,
};
use millstream_common::text;

use super::super::job::{self as job_page, JobPage};
use super::super::query::Query;
use super::super::{jobs, letters, workers};
use super::scene::{self, NOW_US, epoch, job, letter, plan, split, watermarks, worker};

const EVIL: &str = "<script>alert(1)</script>\"'&";

fn no_query() -> Query {
    Query::default()
}

fn shown(name: &str) -> JobPage {
    JobPage {
        job: job(name),
        plan: plan(name),
        watermarks: watermarks(name, vec![split("clicks-0"), split("clicks-1")]),
        epochs: (1..=40).rev().map(epoch).collect(),
        workers: vec![worker("worker-1")],
        now_us: NOW_US,
    }
}

fn rows(html: &str) -> usize {
    html.matches("<tr>").count() - html.matches("<thead>").count()
}

/// Only the script of ours is a script, and whatever users write is text.
fn assert_harmless(html: &str) {
    assert_eq!(html.matches("<script").count(), 1, "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)"), "{html}");
    for attribute in [" style=", " onload=", " onclick=", "javascript:"] {
        assert!(!html.contains(attribute), "{attribute} in {html}");
    }
}

#[test]
fn nothing_that_users_write_becomes_markup() {
    let mut page = shown(EVIL);
    page.plan.sql = format!("-- {EVIL}\nSELECT 1;");
    page.plan.explained = EVIL.to_owned();
    page.plan.stages[0].name = EVIL.to_owned();
    page.plan.stages[0].words = vec![EVIL.to_owned()];
    page.plan.sinks[0].words = EVIL.to_owned();
    page.job.stages[0].name = EVIL.to_owned();
    page.job.sinks[0].cause = Some(EVIL.to_owned());
    page.job.cause = Some(EVIL.to_owned());
    page.job.last_failure = Some(LastFailure {
        cause: EVIL.to_owned(),
        age_ms: 5,
    });
    page.watermarks.why = vec![EVIL.to_owned()];
    let html =
        job_page::page(&page, &Query::parse(Some("split=%3Cscript%3Ealert(1)"))).into_string();
    assert_harmless(&html);
    let listed = jobs::page(
        &[page.job],
        1,
        &Query::parse(Some("q=%22%3Cscript%3Ealert(1)")),
        NOW_US,
    );
    assert_harmless(&listed.into_string());
    let refused = DeadLetterView {
        payload: Some(EVIL.to_owned()),
        reason: EVIL.to_owned(),
        origin: EVIL.to_owned(),
        ..letter(1)
    };
    let html = letters::page(
        &job("clicks"),
        &plan("clicks"),
        &[refused],
        &no_query(),
        NOW_US,
    );
    assert_harmless(&html.into_string());
    assert_harmless(&workers::page(&[worker(EVIL)], NOW_US).into_string());
}

#[test]
fn a_thousand_jobs_are_ten_pages_of_a_hundred_and_a_filter_finds_one() {
    let jobs: Vec<JobView> = (0..1_000)
        .map(|number| {
            let mut job = job(&format!("job-{number:04}"));
            if number % 100 == 7 {
                job.state = JobState::Failed;
            }
            job
        })
        .collect();
    let page = |query: &str| jobs::page(&jobs, 3, &Query::parse(Some(query)), NOW_US).into_string();
    let first = page("");
    assert_eq!(rows(&first), jobs::PAGE);
    assert!(first.contains("1–100 of 1,000 jobs"), "{first}");
    assert!(first.len() < 150_000, "{} bytes", first.len());
    let last = page("page=10");
    assert!(
        last.contains("job-0999") && !last.contains("job-0899"),
        "{last}"
    );
    let failed = page("state=failed");
    assert_eq!(rows(&failed), 10);
    let one = page("q=JOB-0107&state=failed");
    assert_eq!(rows(&one), 1);
    assert!(one.contains("job-0107"), "{one}");
    assert!(page("q=nothing").contains("No job matches"));
}

#[test]
fn a_lag_that_nobody_knows_is_said_in_words_wherever_a_lag_is_shown() {
    let mut page = shown("clicks");
    page.job.lag_records = None;
    page.watermarks = watermarks("clicks", vec![split("clicks-0"), split("clicks-1")]);
    page.watermarks.sources[0].lag_records = None;
    page.watermarks.sources[0].splits[1].lag_records = None;
    let html = job_page::page(&page, &no_query()).into_string();
    let not_known = |html: &str| html.matches(text::LAG_NOT_KNOWN).count();
    // The figure on top, the source, one of the two splits.
    assert_eq!(not_known(&html), 3, "{html}");
    let alone = jobs::page(&[page.job.clone()], 1, &no_query(), NOW_US).into_string();
    assert_eq!(not_known(&alone), 2, "{alone}");
    let both = [page.job, job("views")];
    let both = jobs::page(&both, 1, &no_query(), NOW_US).into_string();
    assert!(both.contains("and of 1 more not known"), "{both}");
}

#[test]
fn ten_thousand_splits_are_pages_of_a_hundred() {
    let mut page = shown("clicks");
    let splits: Vec<SplitWatermarkView> = (0..10_000)
        .map(|number| split(&format!("clicks-{number}")))
        .collect();
    page.watermarks = watermarks("clicks", splits);
    let html = |query: &str| job_page::page(&page, &Query::parse(Some(query))).into_string();
    let first = html("");
    assert!(first.contains("1–100 of 10,000 splits"), "{first}");
    assert!(first.len() < 200_000, "{} bytes", first.len());
    let last = html("page=100");
    assert!(
        last.contains("clicks-9999<") && !last.contains("clicks-9899<"),
        "{last}"
    );
    let found = html("split=clicks-777");
    assert!(
        found.contains("clicks-7779<") && !found.contains("of 10,000 splits"),
        "{found}"
    );
}

#[test]
fn a_jobs_page_shows_its_graph_its_phases_its_sql_and_its_last_failure() {
    let mut page = shown("clicks");
    page.job.last_failure = Some(LastFailure {
        cause: "worker w1 is lost".to_owned(),
        age_ms: 192_000,
    });
    let html = job_page::page(&page, &no_query()).into_string();
    assert_eq!(
        html.matches("<g class=\"node").count(),
        3,
        "two stages and a sink"
    );
    assert_eq!(
        html.matches("<g class=\"edge").count(),
        2,
        "nobody reads the dead letters"
    );
    for part in [
        "blocked 43 %",
        "groups by url: count(*)",
        "collect 50 ms, commit 10 ms, deliver 40 ms",
        "<li><code>  url TEXT</code></li>",
        "worker w1 is lost",
        "3 min 12 s",
        "2026-05-01 09:58:30",
        "1 min 30 s behind",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
}

#[test]
fn tables_have_captions_and_heads_and_a_page_can_be_walked_through_by_keyboard() {
    let html = job_page::page(&shown("clicks"), &no_query()).into_string();
    let tables = html.matches("<table").count();
    assert!(tables >= 5, "{tables}");
    assert_eq!(html.matches("<caption").count(), tables);
    assert!(
        !html.contains("<th>") && !html.contains("<th class=\"number\">"),
        "each has a scope"
    );
    assert!(html.contains("href=\"#content\"") && html.contains("<main id=\"content\""));
    assert!(html.contains("lang=\"en\""));
}

#[test]
fn dead_letters_are_pages_of_fifty_and_a_long_payload_is_cut() {
    let mut letters: Vec<DeadLetterView> = (0..101).map(letter).collect();
    letters[50].payload = Some("x".repeat(1 << 20));
    let page = |query: &str| {
        letters::page(
            &job("clicks"),
            &plan("clicks"),
            &letters,
            &Query::parse(Some(query)),
            NOW_US,
        )
        .into_string()
    };
    let second = page("page=2");
    assert_eq!(rows(&second), letters::PAGE);
    assert!(second.len() < 80_000, "{} bytes", second.len());
    assert!(second.contains("1,044,576 more characters"), "{second}");
    assert!(
        second.contains("Older") && second.contains("Newer"),
        "{second}"
    );
    let chosen = page("owner=clicks&code=late");
    assert!(
        chosen.contains("<option value=\"late\" selected>"),
        "{chosen}"
    );
    assert!(
        chosen.contains("<option value=\"clicks\" selected>"),
        "{chosen}"
    );
}

#[test]
fn a_graph_that_is_too_large_for_a_picture_is_left_to_the_table() {
    let mut page = shown("clicks");
    let stage = page.plan.stages[1].clone();
    page.plan.stages.extend((0..500).map(|_| stage.clone()));
    let html = job_page::page(&page, &no_query()).into_string();
    assert!(html.contains("too many for a picture"), "{html}");
}

#[test]
fn no_workers_and_no_jobs_say_what_to_do() {
    assert!(
        workers::page(&[], NOW_US)
            .into_string()
            .contains("millstream worker --master")
    );
    let empty = jobs::page(&[], 0, &no_query(), NOW_US).into_string();
    assert!(
        empty.contains("millstream submit") && empty.contains("millstream worker"),
        "{empty}"
    );
    let scene = scene::worker("w");
    assert!(
        workers::page(&[scene], NOW_US)
            .into_string()
            .contains("3 min 12 s ago")
    );
}
