//! Records in the shapes that producers give them: steady, shuffled, escaped, nested, full of numbers.
//!
//! Used by `mod.rs` and by the counting of instructions. Pure, the same for the same seed. Every record is a good row, so that both decoders
//! do the same work.

use std::fmt::Write;

use anyhow::Context;
use millstream_common::plan::SourcePlan;
use millstream_common::secret::Environment;
use millstream_master::plan::plan_job;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::clicks::Clicks;

const CLICK_COLUMNS: &str =
    "eventid TEXT, userid TEXT, url TEXT, \"timestamp\" TIMESTAMP, action TEXT";
const NUMBER_COLUMNS: &str = "id BIGINT, small INTEGER, ratio DOUBLE, share DOUBLE, flag BOOLEAN";
/// As `jobs/page_views.sql` reads them.
const JUDGED_COLUMNS: &str = "eventid TEXT NOT NULL, userid TEXT, url TEXT NOT NULL, \"timestamp\" TIMESTAMP NOT NULL, \
     action TEXT NOT NULL CHECK (action IN ('view', 'click', 'purchase')), \
     WATERMARK FOR \"timestamp\" AS \"timestamp\" - INTERVAL '5 minutes'";
/// A field may be missing from one record in this many.
const MISSING_EVERY: u32 = 8;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Clicks as one program writes them: the same keys in the same order.
    Steady,
    /// The same, of which three columns are read.
    Some,
    /// The same, with the rules of a job that keeps time.
    Judged,
    /// The same clicks with their keys in any order, and fields that are missing now and then.
    Shuffled,
    /// Clicks whose texts have escapes.
    Escaped,
    /// Clicks with objects and arrays beside the columns.
    Nested,
    /// Numbers and booleans instead of text.
    Numbers,
}

pub(super) const SHAPES: [Shape; 7] = [
    Shape::Steady,
    Shape::Some,
    Shape::Judged,
    Shape::Shuffled,
    Shape::Escaped,
    Shape::Nested,
    Shape::Numbers,
];

impl Shape {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Steady => "clicks, keys in order",
            Self::Some => "the same, three of five columns",
            Self::Judged => {
                "the same, NOT NULL, CHECK and WATERMARK (arrow-json knows none of these)"
            }
            Self::Shuffled => "keys in any order, some missing",
            Self::Escaped => "texts with escapes",
            Self::Nested => "objects and arrays beside the columns",
            Self::Numbers => "numbers and booleans",
        }
    }

    /// As a source declares them.
    fn columns(self) -> &'static str {
        match self {
            Self::Steady | Self::Shuffled | Self::Escaped | Self::Nested => CLICK_COLUMNS,
            Self::Judged => JUDGED_COLUMNS,
            Self::Some => "eventid TEXT, url TEXT, \"timestamp\" TIMESTAMP",
            Self::Numbers => NUMBER_COLUMNS,
        }
    }

    /// The relation that is delivered, and the view that it is, if it is one: what keeps time has late rows refused.
    fn delivered(self) -> (&'static str, &'static str) {
        match self {
            Self::Judged => (
                "unique_records",
                "CREATE VIEW unique_records AS SELECT DISTINCT ON (eventid) * FROM records;",
            ),
            _ => ("records", ""),
        }
    }

    /// A source of such records.
    pub(super) fn plan(self) -> anyhow::Result<SourcePlan> {
        let (relation, view) = self.delivered();
        let sql = format!(
            "CREATE SOURCE records ({}) WITH (connector = 'kafka', brokers = 'none', topic = 'records', format = 'json');\n\
             {view}\n\
             CREATE SINK nowhere FROM {relation} WITH (connector = 'blackhole');",
            self.columns()
        );
        let planned = plan_job(&sql, &Environment);
        let planned = planned.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let plan = planned.plan.sources.into_iter().next();
        plan.context("the plan has a source")
    }

    /// `count` records that follow from `seed` alone.
    pub(crate) fn records(self, count: usize, seed: u64) -> Vec<String> {
        let mut clicks = Clicks::new(seed);
        let mut random = StdRng::seed_from_u64(seed);
        let mut record = || match self {
            Self::Steady | Self::Some | Self::Judged => clicks.next().to_owned(),
            Self::Shuffled => shuffled(clicks.next(), &mut random),
            Self::Escaped => clicks
                .next()
                .replace("/product/", "\\/caf\\u00e9 \\\"product\\\"\\/"),
            Self::Nested => nested(clicks.next(), &mut random),
            Self::Numbers => numbers(&mut random),
        };
        (0..count).map(|_| record()).collect()
    }
}

fn shuffled(click: &str, random: &mut StdRng) -> String {
    let mut fields: Vec<&str> = click[1..click.len() - 1].split(',').collect();
    fields.shuffle(random);
    if random.random_ratio(1, MISSING_EVERY) {
        fields.pop();
    }
    format!("{{{}}}", fields.join(","))
}

fn nested(click: &str, random: &mut StdRng) -> String {
    let (width, height) = (
        random.random_range(300..2_000),
        random.random_range(300..2_000),
    );
    format!(
        r#"{{"device":{{"os":"linux","screen":[{width},{height}],"tags":["a","b",{{"deep":[1,[2,[3]]]}}]}},{}"#,
        &click[1..]
    )
}

fn numbers(random: &mut StdRng) -> String {
    let mut text = String::with_capacity(128);
    let (id, small): (i64, i32) = (random.random(), random.random_range(0..100_000));
    let (ratio, share): (f64, f64) = (random.random(), random.random_range(-1e6..1e6));
    let flag: bool = random.random();
    write!(
        text,
        r#"{{"id":{id},"small":{small},"ratio":{ratio},"share":{share:.2},"flag":{flag}}}"#
    )
    .expect("a String takes everything");
    text
}
