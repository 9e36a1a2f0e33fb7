//! `jobs/generate/*.sql`: each job runs to its end, makes what it says, and makes it again from the same seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, ensure};
use chrono::{NaiveDate, NaiveDateTime, TimeDelta};
use millstream_tests::process::run_to_end;
use millstream_tests::services::project_folder;
use serde_json::Value;
use tempfile::TempDir;

/// One of the jobs, and how it is run here.
#[derive(Clone, Copy)]
struct Generator {
    file: &'static str,
    /// The variable with the folder for its output.
    folder: &'static str,
    row_count: usize,
}

/// The files of a run.
struct Made {
    /// The first line of each; CSV only.
    headers: BTreeSet<String>,
    /// In the order of their first field.
    rows: Vec<String>,
}

impl Generator {
    /// Two runs of a seed make the same rows, another seed makes others; the rows of the first.
    async fn rows(self, header: Option<&str>) -> anyhow::Result<Vec<Vec<String>>> {
        let (first, again, other) = tokio::join!(self.run("1"), self.run("1"), self.run("2"));
        let (first, again, other) = (first?, again?, other?);
        ensure!(
            first.rows == again.rows,
            "{}: a seed makes two things",
            self.file
        );
        ensure!(
            first.rows != other.rows,
            "{}: the seed means nothing",
            self.file
        );
        let count = first.rows.len();
        ensure!(count == self.row_count, "{}: {count} rows", self.file);
        let headers: Vec<&str> = first.headers.iter().map(String::as_str).collect();
        ensure!(
            headers == Vec::from_iter(header),
            "{}: {headers:?}",
            self.file
        );
        let rows = first.rows.iter();
        Ok(rows
            .map(|row| row.split(',').map(str::to_owned).collect())
            .collect())
    }

    async fn run(self, seed: &str) -> anyhow::Result<Made> {
        let folder = TempDir::new()?;
        let text = |path: &Path| path.display().to_string();
        let job = text(&project_folder().join("jobs/generate").join(self.file));
        let storage = text(&folder.path().join("storage"));
        let output = folder.path().join("output");
        let (code, _, said) = run_to_end(
            &["run", &job, "--storage", &storage],
            &[
                ("ROWS", &self.row_count.to_string()),
                ("ROWS_PER_SECOND", "100000"),
                ("SEED", seed),
                (self.folder, &text(&output)),
            ],
        )
        .await?;
        ensure!(code == 0, "{}: {said}", self.file);
        Made::read(&output).with_context(|| format!("read what {} made", self.file))
    }
}

impl Made {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut made = Self {
            headers: BTreeSet::new(),
            rows: Vec::new(),
        };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let is_csv = path.extension().is_some_and(|extension| extension == "csv");
            let is_json = path
                .extension()
                .is_some_and(|extension| extension == "json");
            if is_csv || is_json {
                let text = std::fs::read_to_string(&path)?;
                let mut lines = text.lines().map(str::to_owned);
                made.headers
                    .extend(lines.by_ref().take(usize::from(is_csv)));
                made.rows.extend(lines);
            }
        }
        made.rows
            .sort_by(|left, right| order(left).cmp(&order(right)));
        Ok(made)
    }
}

/// Numbers by their size, whatever they look like as text.
fn order(row: &str) -> (usize, &str) {
    let first = row.split(',').next().unwrap_or_default();
    (first.len(), row)
}

fn number<T: FromStr>(text: &str) -> anyhow::Result<T> {
    let parsed = text.parse().ok();
    parsed.with_context(|| format!("{text:?} is no number of its kind"))
}

/// The cents of a price, which has two decimals.
fn cents(text: &str) -> anyhow::Result<i64> {
    let (whole, cents) = text.split_once('.').context("a price without a point")?;
    ensure!(cents.len() == 2, "price {text:?}");
    Ok(number::<i64>(whole)? * 100 + number::<i64>(cents)?)
}

fn moment(text: &str) -> anyhow::Result<NaiveDateTime> {
    text.parse().with_context(|| format!("{text:?} is no time"))
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_users_are_numbered_and_signed_up_on_days_of_two_years() -> anyhow::Result<()> {
    let generator = Generator {
        file: "users.sql",
        folder: "USERS_FOLDER",
        row_count: 1_000,
    };
    let header = "user_id,name,email,country,signed_up_on";
    let mut by_country: BTreeMap<String, u32> = BTreeMap::new();
    let mut days = BTreeSet::new();
    for (row, n) in generator.rows(Some(header)).await?.into_iter().zip(1..) {
        let [id, name, email, country, signed_up_on] = &row[..] else {
            anyhow::bail!("{row:?}")
        };
        ensure!(
            *id == n.to_string() && *name == format!("User {n:05}"),
            "{row:?}"
        );
        ensure!(*email == format!("user{n}@example.com"), "{row:?}");
        *by_country.entry(country.clone()).or_default() += 1;
        days.insert(signed_up_on.parse::<NaiveDate>().context("a day")?);
    }
    let countries: Vec<&str> = by_country.keys().map(String::as_str).collect();
    ensure!(
        countries == ["", "BR", "DE", "FR", "JO", "JP", "US"],
        "{by_country:?}"
    );
    ensure!(
        by_country["DE"] > by_country["BR"] && by_country[""] < 60,
        "{by_country:?}"
    );
    let (first, last) = (days.first().context("days")?, days.last().context("days")?);
    let bounds = ["2024-01-01", "2026-01-01"].map(|day| day.parse::<NaiveDate>());
    ensure!(
        *first >= bounds[0]? && *last <= bounds[1]?,
        "{first} to {last}"
    );
    ensure!(days.len() > 400, "{} days", days.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_products_are_numbered_and_have_prices() -> anyhow::Result<()> {
    let generator = Generator {
        file: "products.sql",
        folder: "PRODUCTS_FOLDER",
        row_count: 500,
    };
    let mut categories = BTreeSet::new();
    for (row, n) in generator
        .rows(Some("product_id,name,category,price"))
        .await?
        .into_iter()
        .zip(1..)
    {
        let [id, name, category, price] = &row[..] else {
            anyhow::bail!("{row:?}")
        };
        ensure!(
            *id == n.to_string() && *name == format!("Product {n:03}"),
            "{row:?}"
        );
        ensure!((100..=50_000).contains(&cents(price)?), "{row:?}");
        categories.insert(category.clone());
    }
    let expected = ["books", "games", "garden", "kitchen", "music", "sports"];
    ensure!(categories.iter().eq(expected), "{categories:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_orders_are_of_the_users_and_products_beside_them() -> anyhow::Result<()> {
    let generator = Generator {
        file: "orders.sql",
        folder: "ORDERS_FOLDER",
        row_count: 10_000,
    };
    let first = moment("2026-01-17T00:00:00")?;
    let mut quantities = BTreeSet::new();
    let header = "order_id,user_id,product_id,quantity,ordered_at";
    for (row, n) in generator.rows(Some(header)).await?.into_iter().zip(1..) {
        let [id, user, product, quantity, ordered_at] = &row[..] else {
            anyhow::bail!("{row:?}")
        };
        ensure!(*id == n.to_string(), "{row:?}");
        ensure!((1..=1_000).contains(&number::<i32>(user)?), "{row:?}");
        ensure!((1..=50).contains(&number::<i32>(product)?), "{row:?}");
        ensure!(
            moment(ordered_at)? == first + TimeDelta::seconds(8 * (n - 1)),
            "{row:?}"
        );
        quantities.insert(quantity.clone());
    }
    ensure!(
        quantities.iter().eq(["1", "2", "3", "4", "5"]),
        "{quantities:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_activity_has_a_price_where_something_was_bought() -> anyhow::Result<()> {
    let generator = Generator {
        file: "activity.sql",
        folder: "USER_ACTIVITY_FOLDER",
        row_count: 5_000,
    };
    let first = moment("2026-01-17T10:00:00")?;
    let mut purchases = 0;
    let header = "event_id,user_id,event_type,product_id,price,event_time";
    for (row, n) in generator.rows(Some(header)).await?.into_iter().zip(1..) {
        let [id, user, kind, product, price, time] = &row[..] else {
            anyhow::bail!("{row:?}")
        };
        ensure!(*id == format!("a{n:08}"), "{row:?}");
        ensure!((1..=1_000).contains(&number::<i32>(user)?), "{row:?}");
        ensure!((1..=50).contains(&number::<i32>(product)?), "{row:?}");
        ensure!(
            moment(time)? == first + TimeDelta::milliseconds(10 * (n - 1)),
            "{row:?}"
        );
        match kind.as_str() {
            "view" => ensure!(cents(price)? == 0, "{row:?}"),
            "purchase" => ensure!((100..=50_000).contains(&cents(price)?), "{row:?}"),
            _ => anyhow::bail!("{row:?}"),
        }
        purchases += u32::from(kind == "purchase");
    }
    // The second choice comes a quarter as often as the first.
    ensure!((800..1_200).contains(&purchases), "{purchases} purchases");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_clicks_are_json_that_page_views_would_take() -> anyhow::Result<()> {
    let generator = Generator {
        file: "clicks.sql",
        folder: "CLICKS_FOLDER",
        row_count: 10_000,
    };
    let mut events = BTreeSet::new();
    let mut unknown_users = 0;
    let mut by_action: BTreeMap<String, u32> = BTreeMap::new();
    for row in generator.rows(None).await? {
        let click: Value = serde_json::from_str(&row.join(","))?;
        let text = |name: &str| {
            click[name]
                .as_str()
                .with_context(|| format!("{name} of {click}"))
        };
        let n: i64 = number(text("eventid")?.strip_prefix('e').context("an e")?)?;
        ensure!(events.insert(n), "{click} comes twice");
        let page = text("url")?
            .strip_prefix("/product/")
            .context("a product")?;
        ensure!((1..=50).contains(&number::<i32>(page)?), "{click}");
        let time = moment("2026-01-17T10:00:00")? + TimeDelta::milliseconds(50 * (n - 1));
        ensure!(moment(text("timestamp")?)? == time, "{click}");
        match &click["userid"] {
            Value::Null => unknown_users += 1,
            Value::String(user) => {
                let user = number::<i32>(user.strip_prefix('u').context("a u")?)?;
                ensure!((1..=1_000).contains(&user), "{click}");
            }
            _ => anyhow::bail!("{click}"),
        }
        *by_action.entry(text("action")?.to_owned()).or_default() += 1;
    }
    ensure!(events.first() == Some(&1) && events.last() == Some(&10_000));
    ensure!(
        (350..650).contains(&unknown_users),
        "{unknown_users} without a user"
    );
    let [views, clicks, purchases] = ["view", "click", "purchase"].map(|action| by_action[action]);
    ensure!(
        views > clicks && clicks > purchases && by_action.len() == 3,
        "{by_action:?}"
    );
    Ok(())
}
