//! Plans of SQL that has changed: what goes on, what is refused, and with which words.

use std::collections::BTreeMap;

use millstream_common::ids::{Epoch, OperatorId, OutputIndex, SinkIndex, SourceIndex};
use millstream_common::log::entry::{CommittedEpoch, JobProgress};
use millstream_common::plan::JobPlan;
use millstream_common::replay_split::{ReplayObject, split_of};
use millstream_common::report::{RowCounters, Segment, SplitProgress, SplitStatus, StatePart};
use millstream_common::time::EventTime;

use super::outputs::numbered_as;
use super::*;
use crate::testing::plan;

const SOURCE: &str = "\
    CREATE SOURCE clicks (id TEXT NOT NULL, url TEXT NOT NULL, at TIMESTAMP NOT NULL,\
      WATERMARK FOR at AS at - INTERVAL '1 minute') \
      WITH (connector = 'kafka', brokers = 'b', topic = 'clicks', format = 'json');\
    CREATE VIEW firsts AS SELECT DISTINCT ON (id) * FROM clicks;";
pub(super) const VIEWS: &str = "\
    CREATE VIEW views AS SELECT window_start, window_end, url, count(*) AS n \
      FROM TUMBLE(firsts, at, INTERVAL '1 minute') GROUP BY window_start, window_end, url;";
pub(super) const SINKS: &str = "\
    CREATE SINK shown FROM views WITH (connector = 'console');\
    CREATE SINK late FROM clicks.dead_letters WITH (connector = 'console');";

pub(super) fn sql(views: &str, sinks: &str) -> JobPlan {
    plan(&format!("{SOURCE}{views}{sinks}"))
}

pub(super) fn old() -> JobPlan {
    sql(VIEWS, SINKS)
}

fn part(path: &str) -> Vec<StatePart> {
    vec![StatePart {
        path: path.to_owned(),
        epoch: Epoch(7),
        bytes: 1,
        checksum: 1,
        row_count: 1,
    }]
}

/// The ids of the keyed operators of a plan, in order.
fn operators(plan: &JobPlan) -> Vec<OperatorId> {
    let keyed = refuse::keyed(plan).map(|keyed| keyed.operator.clone());
    keyed.collect()
}

/// At epoch 9; the sink `shown` lacks epoch 9, `late` nothing.
pub(super) fn progress() -> JobProgress {
    let split = SplitProgress {
        position: 5,
        end: None,
        watermark: Some(EventTime(3)),
        status: SplitStatus::Active,
        identity: None,
        gaps: None,
    };
    let segment = |output| Segment {
        output: OutputIndex(output),
        path: format!("segments/{output}"),
        bytes: 1,
        checksum: 1,
        row_count: 1,
    };
    let parts = operators(&old()).into_iter().map(|operator| {
        let path = format!("state/{operator}");
        (operator, part(&path))
    });
    JobProgress {
        epoch: Epoch(9),
        splits: BTreeMap::from([(SourceIndex(0), BTreeMap::from([("clicks-0".into(), split)]))]),
        watermarks: BTreeMap::from([(SourceIndex(0), EventTime(3))]),
        acted_watermarks: BTreeMap::from([(SourceIndex(0), EventTime(2))]),
        parts: parts.collect(),
        counters: BTreeMap::from([(SourceIndex(0), RowCounters::default())]),
        sink_markers: BTreeMap::from([(SinkIndex(0), Epoch(8)), (SinkIndex(1), Epoch(9))]),
        delivered: Epoch(8),
        retained_from: Epoch(8),
        recent: vec![CommittedEpoch {
            epoch: Epoch(9),
            parent: Epoch(8),
            segments: (0..old().outputs.len())
                .map(|output| segment(output as u32))
                .collect(),
            refused: Vec::new(),
            last: false,
        }],
        replays: BTreeMap::from([(SourceIndex(0), BTreeMap::from([(split_of("a"), replay())]))]),
        ..JobProgress::default()
    }
}

/// Rows that are to go through the job again, and that no epoch has recorded yet.
fn replay() -> ReplayObject {
    ReplayObject {
        path: "replays/a".to_owned(),
        bytes: 1,
        checksum: 1,
        row_count: 1,
        event_time_us: None,
        sent_at_us: 0,
    }
}

pub(super) const GOES_ON: Terms = Terms {
    goes_on: true,
    may_drop: false,
};

fn carried_to(new: JobPlan, terms: Terms) -> Result<(JobPlan, Carried), Vec<String>> {
    let new = numbered_as(&old(), new);
    carry(&old(), &new, &progress(), terms).map(|carried| (new, carried))
}

fn refusal(new: JobPlan, terms: Terms) -> String {
    match carried_to(new, terms) {
        Ok(carried) => panic!("it fits: {carried:?}"),
        Err(reasons) => reasons.join("; "),
    }
}

#[test]
fn the_same_sql_is_the_same_plan_and_everything_goes_on_but_the_counts() {
    let (new, carried) = carried_to(old(), GOES_ON).expect("it fits");
    assert_eq!(new, old());
    let expected = JobProgress {
        counters: BTreeMap::new(),
        // Of what it lacks one row, which it gets under the new plan.
        owed: BTreeMap::from([(SinkIndex(0), 1)]),
        output_starts: carried.progress.output_starts.clone(),
        ..progress()
    };
    let is_read = |output: &OutputIndex| old().sinks.iter().any(|sink| sink.output == *output);
    let starts = &carried.progress.output_starts;
    assert_eq!(starts.keys().find(|output| is_read(output)), None);
    let unread = old().outputs.len() - old().sinks.len();
    assert_eq!(starts.len(), unread, "nobody was shipped what they are of");

    assert_eq!(carried.progress, expected);
    assert_eq!(carried.notes, Vec::<String>::new());
}

#[test]
fn a_new_view_and_sink_in_front_begin_behind_the_checkpoint_and_the_others_go_on() {
    let more = "CREATE VIEW home AS SELECT id, url FROM firsts WHERE url = '/';\
        CREATE VIEW totals AS SELECT url, count(*) AS n FROM firsts GROUP BY url;";
    let sinks = format!(
        "CREATE SINK first FROM home WITH (connector = 'console');\
        CREATE SINK sums FROM totals WITH (connector = 'console', emit = 'changes');{SINKS}"
    );
    let (new, carried) = carried_to(sql(&format!("{more}{VIEWS}"), &sinks), GOES_ON).expect("fits");
    let names: Vec<&str> = new.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["first", "sums", "shown", "late"]);
    for (index, output) in old().outputs.iter().enumerate() {
        assert_eq!(&new.outputs[index], output, "outputs keep their numbers");
    }
    let markers: Vec<u64> = carried
        .progress
        .sink_markers
        .values()
        .map(|marker| marker.0)
        .collect();
    assert_eq!(markers, [9, 9, 8, 9]);
    let starts = BTreeMap::from([(SinkIndex(0), Epoch(9)), (SinkIndex(1), Epoch(9))]);
    assert_eq!(carried.progress.sink_starts, starts);
    assert_eq!(carried.progress.recent, progress().recent);
    assert_eq!(carried.progress.parts, progress().parts);
    let [note] = carried.notes.as_slice() else {
        panic!("{:?}", carried.notes);
    };
    assert!(
        note.starts_with("totals/") && note.ends_with("begins empty behind epoch 9"),
        "{note}"
    );
}

#[test]
fn a_filter_behind_the_state_may_change() {
    let views = VIEWS.replace(
        "GROUP BY window_start, window_end, url",
        "GROUP BY window_start, window_end, url HAVING count(*) > 1",
    );
    carried_to(sql(&views, SINKS), GOES_ON).expect("it fits");
}

#[test]
fn state_of_other_keys_or_aggregates_is_refused_with_the_operator_and_the_reason() {
    let aggregates = VIEWS.replace("count(*) AS n", "count(*) AS n, max(id) AS last");
    let text = refusal(sql(&aggregates, SINKS), GOES_ON);
    let id = &operators(&old())[1];
    assert!(
        text.contains(&format!(
            "operator {id}: its state does not fit: its aggregates were ("
        )),
        "{text}"
    );
    let source = SOURCE.replace("DISTINCT ON (id)", "DISTINCT ON (url)");
    let text = refusal(plan(&format!("{source}{VIEWS}{SINKS}")), GOES_ON);
    assert!(
        text.contains("its keys were (id Utf8) and are (url Utf8)"),
        "{text}"
    );
    let window = VIEWS.replace("1 minute", "2 minutes");
    let text = refusal(sql(&window, SINKS), GOES_ON);
    assert!(text.contains(&format!("operator {id}")), "{text}");
}

#[test]
fn state_that_nothing_takes_is_refused_unless_it_is_to_be_dropped() {
    let sinks = "CREATE SINK late FROM clicks.dead_letters WITH (connector = 'console');\
        CREATE SINK all FROM firsts WITH (connector = 'console');";
    let text = refusal(sql("", sinks), GOES_ON);
    let id = &operators(&old())[1];
    assert_eq!(
        text,
        format!(
            "the state of operator {id} would be dropped: keep it in the SQL, or drop it with --allow-dropped-state"
        )
    );
    let terms = Terms {
        may_drop: true,
        ..GOES_ON
    };
    let (_, carried) = carried_to(sql("", sinks), terms).expect("it may be dropped");
    assert!(!carried.progress.parts.contains_key(id));
    assert_eq!(
        carried.notes,
        [format!("the state of operator {id} is dropped")]
    );
}

#[test]
fn positions_and_markers_of_another_place_are_refused() {
    let source = SOURCE.replace("topic = 'clicks'", "topic = 'others'");
    let text = refusal(plan(&format!("{source}{VIEWS}{SINKS}")), GOES_ON);
    assert!(
        text.contains("source clicks") && text.contains("topic was \"clicks\" and is \"others\""),
        "{text}"
    );
    let sinks = SINKS.replace(
        "FROM views WITH (connector = 'console')",
        "FROM views WITH (connector = 'blackhole')",
    );
    let text = refusal(sql(VIEWS, &sinks), GOES_ON);
    assert!(
        text.contains("sink shown: what it holds is in another place"),
        "{text}"
    );
    let anew = Terms {
        goes_on: false,
        may_drop: false,
    };
    let (_, carried) = carried_to(sql(VIEWS, &sinks), anew).expect("sinks of a new life begin");
    assert_eq!(carried.progress.recent, []);
    assert!(
        carried
            .progress
            .sink_starts
            .values()
            .all(|start| *start == Epoch(9))
    );
}

#[test]
fn a_sink_that_lacks_rows_of_the_relation_it_read_before_is_not_led_to_another() {
    let other = SINKS.replace("FROM views", "FROM firsts");
    let sinks = format!("{other}CREATE SINK too FROM views WITH (connector = 'console');");
    let text = refusal(sql(VIEWS, &sinks), GOES_ON);
    assert!(
        text.contains("sink shown: its emit") || text.contains("sink shown: it holds epoch 8"),
        "{text}"
    );
}

#[test]
fn a_sink_that_is_led_to_another_relation_begins_with_it_behind_the_checkpoint() {
    let sinks = "\
        CREATE SINK shown FROM views WITH (connector = 'console');\
        CREATE SINK all FROM firsts WITH (connector = 'console');\
        CREATE SINK late FROM clicks.dead_letters WITH (connector = 'console');";
    let before = sql(VIEWS, sinks);
    let led = sinks.replace("late FROM clicks.dead_letters", "late FROM firsts");
    let after = numbered_as(&before, sql(VIEWS, &led));
    let firsts = before.sinks[1].output;
    assert_eq!(after.sinks[2].output, firsts);
    // It holds all of its old relation; that it has come to the checkpoint was not heard.
    let mut progress = progress();
    progress.sink_markers = [(0, 8), (1, 8), (2, 8)]
        .map(|(sink, marker)| (SinkIndex(sink), Epoch(marker)))
        .into();
    progress.recent[0]
        .segments
        .retain(|segment| segment.output == firsts);
    let carried = carry(&before, &after, &progress, GOES_ON).expect("it fits");
    let sink = SinkIndex(2);
    assert_eq!(
        carried.progress.sink_starts,
        BTreeMap::from([(sink, Epoch(9))])
    );
    assert_eq!(carried.progress.sink_markers[&sink], Epoch(9));
    assert_eq!(carried.progress.sink_markers[&SinkIndex(1)], Epoch(8));
    let [note] = carried.notes.as_slice() else {
        panic!("{:?}", carried.notes);
    };
    assert_eq!(
        note,
        "sink late reads firsts behind epoch 9; what it holds of clicks.dead_letters stays"
    );
    // Its marker may be ahead of what is kept.
    let early = led.replace(
        "late FROM firsts WITH (",
        "late FROM firsts WITH (start = 'retained', ",
    );
    let early = numbered_as(&before, sql(VIEWS, &early));
    let refused = carry(&before, &early, &progress, GOES_ON).expect_err("it cannot go back");
    assert!(
        refused[0].contains("sink late: start = 'retained': it holds rows of another relation"),
        "{refused:?}"
    );
}

#[test]
fn what_goes_leaves_its_number_to_nobody_and_what_stays_keeps_its_own() {
    let other = "\
        CREATE SINK late FROM clicks.dead_letters WITH (connector = 'console');\
        CREATE SINK seen FROM firsts WITH (connector = 'console');";
    let relations = |plan: &JobPlan| -> Vec<String> {
        let outputs = plan.outputs.iter();
        outputs.map(|output| output.relation.clone()).collect()
    };
    let new = numbered_as(&old(), sql("", other));
    let before = relations(&old());
    assert!(before.contains(&"views".to_owned()));
    let after = relations(&new);
    assert_eq!(after[..before.len()], before);
    assert!(after[before.len()..].contains(&"firsts".to_owned()));
    assert_eq!(after[new.sinks[1].output.index()], "firsts");
    assert_eq!(numbered_as(&new, sql("", other)), new, "the same SQL again");
}

/// Behind [`VIEWS`] and [`SINKS`], with one more sink.
pub(super) fn with_sink(relation: &str, options: &str) -> JobPlan {
    let more = format!("CREATE SINK more FROM {relation} WITH (connector = 'console'{options});");
    sql(VIEWS, &format!("{SINKS}{more}"))
}

#[test]
fn a_new_sink_begins_now_with_what_is_kept_or_with_what_is_held() {
    const MORE: SinkIndex = SinkIndex(2);
    let mut progress = progress();
    progress.retained_from = Epoch(4);
    let begun = |relation, options| {
        let new = numbered_as(&old(), with_sink(relation, options));
        let carried = carry(&old(), &new, &progress, GOES_ON).expect("it fits");
        let starts = &carried.progress.sink_starts;
        assert_eq!(starts.keys().collect::<Vec<_>>(), [&MORE]);
        let held: Vec<String> = carried
            .progress
            .snapshots
            .iter()
            .map(ToString::to_string)
            .collect();
        (
            starts[&MORE].0,
            carried.progress.marker(MORE).0,
            held.join(","),
        )
    };
    let nothing = String::new;
    assert_eq!(begun("views", ""), (9, 9, nothing()));
    assert_eq!(begun("views", ", start = 'now'"), (9, 9, nothing()));
    assert_eq!(begun("views", ", start = 'retained'"), (4, 4, nothing()));
    let held = "views/aggregate/1".to_owned();
    assert_eq!(begun("views", ", emit = 'changes'"), (9, 9, held.clone()));
    let said = ", emit = 'changes', start = 'snapshot'";
    assert_eq!(begun("views", said), (9, 9, held));
    let said = ", emit = 'changes', start = 'now'";
    assert_eq!(begun("views", said), (9, 9, nothing()));
}

#[test]
fn rows_that_nobody_was_shipped_cannot_be_where_a_sink_begins() {
    let text = refusal(with_sink("firsts", ", start = 'retained'"), GOES_ON);
    assert!(
        text.contains("sink more: start = 'retained': no sink has read firsts"),
        "{text}"
    );
    let anew = Terms {
        goes_on: false,
        may_drop: false,
    };
    let text = refusal(with_sink("views", ", start = 'retained'"), anew);
    assert!(text.contains("a new life has shipped nothing"), "{text}");
}
