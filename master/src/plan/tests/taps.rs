//! Where the rows of each relation are: at a port of a stage that runs, whatever else the stage does with them.

use millstream_common::ids::StageIndex;

use super::*;

const SOURCE: &str = "CREATE SOURCE clicks (id TEXT NOT NULL, url TEXT, agent TEXT, at TIMESTAMP NOT NULL, \
     WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (connector = 'datagen', rows_per_second = '1'); ";

fn tapped(planned: &PlannedJob, relation: &str) -> Result<Tapped, String> {
    let mut relations = planned.relations.iter();
    let found = relations.find(|known| known.relation == relation);
    found.expect("a relation").rows.clone()
}

fn names(tap: &millstream_common::preview::Tap) -> Vec<&str> {
    let fields = tap.schema.0.fields().iter();
    fields.map(|field| field.name().as_str()).collect()
}

#[test]
fn a_source_and_its_dead_letters_are_at_the_ports_of_its_stage() {
    let planned = plan(&format!(
        "{SOURCE} CREATE SINK s FROM clicks WITH (connector = 'blackhole')"
    ));
    let rows = tapped(&planned, "clicks").expect("rows");
    let tap = &rows.taps[0];
    assert_eq!((tap.stage, tap.port), (StageIndex(0), Port::Rows));
    assert_eq!(names(tap), ["id", "url", "agent", "at"]);
    assert!(tap.transforms.is_empty() && !rows.is_changelog);
    let letters = tapped(&planned, "clicks.dead_letters").expect("letters");
    assert_eq!(letters.taps[0].port, Port::DeadLetters);
    let reason = tapped(&planned, "s.dead_letters").expect_err("no task");
    assert!(reason.contains("made by the sink"), "{reason}");
}

#[test]
fn a_view_that_is_only_a_step_of_a_stage_is_tapped_where_its_rows_come_from() {
    let planned = plan(&format!(
        "{SOURCE}
         CREATE VIEW seen AS SELECT upper(url) AS page, at FROM clicks WHERE url IS NOT NULL;
         CREATE VIEW unread AS SELECT page FROM seen WHERE page <> '/';
         CREATE VIEW pages AS SELECT window_start, page, count(*) AS views
           FROM TUMBLE(seen, at, INTERVAL '1 minute') GROUP BY window_start, page;
         CREATE SINK s FROM pages WITH (connector = 'blackhole', emit = 'final')"
    ));
    let seen = tapped(&planned, "seen").expect("rows");
    assert_eq!(seen.taps[0].stage, StageIndex(0));
    assert_eq!(names(&seen.taps[0]), ["page", "at"]);
    let kinds: Vec<bool> = (seen.taps[0].transforms.iter())
        .map(|transform| matches!(transform, Transform::Filter(_)))
        .collect();
    assert_eq!(kinds, [true, false]);
    let unread = tapped(&planned, "unread").expect("nobody has to read it");
    assert_eq!(names(&unread.taps[0]), ["page"]);
    let pages = tapped(&planned, "pages").expect("groups");
    let tap = &pages.taps[0];
    assert_eq!((tap.stage, tap.port), (StageIndex(1), Port::Changes));
    assert!(pages.is_changelog, "groups show how they change");
}

#[test]
fn columns_that_no_task_keeps_are_left_out_and_named() {
    let planned = plan(&format!(
        "{SOURCE}
         CREATE VIEW firsts AS SELECT DISTINCT ON (id) * FROM clicks;
         CREATE VIEW by_agent AS SELECT id FROM firsts WHERE agent = 'x';
         CREATE VIEW urls AS SELECT url FROM firsts;
         CREATE SINK s FROM urls WITH (connector = 'blackhole')"
    ));
    let firsts = tapped(&planned, "firsts").expect("rows");
    assert_eq!(firsts.taps[0].stage, StageIndex(1));
    assert_eq!(names(&firsts.taps[0]), ["id", "url", "at"]);
    assert_eq!(firsts.left_out, ["agent"]);
    let reason = tapped(&planned, "by_agent").expect_err("no column to filter by");
    assert!(reason.starts_with("it is filtered by agent"), "{reason}");
}

#[test]
fn a_view_whose_stage_does_not_run_says_so() {
    let planned = plan(&format!(
        "{SOURCE}
         CREATE VIEW firsts AS SELECT DISTINCT ON (id) * FROM clicks;
         CREATE SINK s FROM clicks WITH (connector = 'blackhole')"
    ));
    let reason = tapped(&planned, "firsts").expect_err("no stage");
    assert_eq!(reason, "no sink reads it, so no task computes it");
    assert!(tapped(&planned, "firsts.dead_letters").is_err());
}

#[test]
fn every_input_of_a_union_is_tapped() {
    let planned = plan(&format!(
        "{SOURCE}
         CREATE VIEW both AS SELECT id AS name FROM clicks UNION ALL SELECT url AS name FROM clicks;
         CREATE SINK s FROM both WITH (connector = 'blackhole')"
    ));
    let both = tapped(&planned, "both").expect("rows");
    assert_eq!(both.taps.len(), 2);
    assert!(both.taps.iter().all(|tap| names(tap) == ["name"]));
    assert!(!both.is_changelog);
}
