//! Rows of the tables of the Nexmark benchmark, value by value.
//!
//! Called by `rows.rs`. Which event of the stream a row is, and which persons and auctions there have been by then, says
//! [`millstream_common::datagen::nexmark`]; the shares of what is much asked for, the names and the lengths of texts are the benchmark's defaults. A
//! value depends on (seed, what it is, event) and nothing else; values that belong together, as a bid's channel and URL, draw from one stream.
//! Pure; cannot fail.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringBuilder};
use arrow::datatypes::DataType;
use millstream_common::datagen::nexmark::{
    EVENT_GAP_US, NexmarkTable, NexmarkValue as Value, events_of_auctions, last_auction,
    last_person,
};

use super::random::{Chance, ColumnChance};

/// 2026-01-01T00:00:00, in microseconds: the moment of event 0.
const FIRST_EVENT_US: u64 = 1_767_225_600_000_000;
/// Ids of persons and auctions begin here.
const FIRST_ID: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Auctions that take bids at a time.
const AUCTIONS_IN_FLIGHT: u64 = 100;
/// Persons that bid at a time.
const ACTIVE_PERSONS: u64 = 1_000;
/// Ids that bids and auctions name a little before they begin.
const LEAD: u64 = 10;
/// The one in so many that is much asked for.
const HOT_GROUP: u64 = 100;
/// Of this many bids all but one go to an auction that is much asked for.
const HOT_AUCTIONS: u64 = 2;
/// The same of bidders and of sellers.
const HOT_PERSONS: u64 = 4;
/// The same of channels.
const HOT_CHANNELS: u64 = 2;
const CHANNELS: u64 = 10_000;
/// Bytes of a row, on average, of which the numbers take some; the column `extra` fills it up.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;
const BID_NUMBER_BYTES: usize = 32;

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNEL_NAMES: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// A column of one of the tables.
pub(super) struct NexmarkColumn {
    table: NexmarkTable,
    value: Value,
    chance: ColumnChance,
    /// Of each channel, if these are asked for.
    urls: Vec<String>,
}

impl NexmarkColumn {
    pub(super) fn new(table: NexmarkTable, value: Value, seed: u64) -> Self {
        let stream = match value {
            Value::Channel | Value::Url => "nexmark channel",
            Value::InitialBid | Value::Reserve => "nexmark prices",
            other => return Self::of(table, value, seed, &format!("nexmark {other:?}")),
        };
        Self::of(table, value, seed, stream)
    }

    fn of(table: NexmarkTable, value: Value, seed: u64, stream: &str) -> Self {
        Self {
            table,
            value,
            chance: ColumnChance::new(seed, stream),
            urls: match value {
                Value::Url => (0..CHANNELS + HOT_CHANNEL_NAMES.len() as u64)
                    .map(url)
                    .collect(),
                _ => Vec::new(),
            },
        }
    }

    /// The values of these rows; NULL where a row is not `present`.
    pub(super) fn values(
        &self,
        rows: impl Iterator<Item = u64>,
        present: impl Fn(u64) -> bool,
    ) -> ArrayRef {
        if self.value.data_type() == DataType::Utf8 {
            let mut texts = StringBuilder::new();
            let mut text = String::new();
            for row in rows {
                if present(row) {
                    text.clear();
                    let event = self.table.event(row);
                    self.write(&mut self.chance.row(event), &mut text);
                    texts.append_value(&text);
                } else {
                    texts.append_null();
                }
            }
            return Arc::new(texts.finish());
        }
        let numbers = rows.map(|row| {
            let event = self.table.event(row);
            present(row).then(|| self.number(event, &mut self.chance.row(event)) as i64)
        });
        Arc::new(Int64Array::from_iter(numbers))
    }

    /// Times are microseconds since 1970.
    fn number(&self, event: u64, chance: &mut Chance) -> u64 {
        match self.value {
            Value::Id => match self.table {
                NexmarkTable::Person => FIRST_ID + last_person(event),
                NexmarkTable::Auction | NexmarkTable::Bid => FIRST_ID + last_auction(event),
            },
            Value::DateTime => moment(event),
            Value::Auction => auction_of_bid(event, chance),
            Value::Bidder => person(event, chance, 1),
            Value::Seller => person(event, chance, 0),
            Value::InitialBid | Value::Price => price(chance),
            Value::Reserve => {
                let initial_bid = price(chance);
                initial_bid + price(chance)
            }
            Value::Category => FIRST_CATEGORY + below(chance, CATEGORIES),
            Value::Expires => {
                // About as long as the auctions in flight take to begin, so that their number stays.
                let events = events_of_auctions(AUCTIONS_IN_FLIGHT);
                let horizon_ms = events * EVENT_GAP_US / 1_000;
                moment(event) + (1 + below(chance, (horizon_ms * 2).max(1))) * 1_000
            }
            other => unreachable!("{other:?} is text"),
        }
    }

    fn write(&self, chance: &mut Chance, text: &mut String) {
        match self.value {
            Value::Name => {
                text.push_str(one_of(chance, &FIRST_NAMES));
                text.push(' ');
                text.push_str(one_of(chance, &LAST_NAMES));
            }
            Value::EmailAddress => {
                push_word(chance, 7, text);
                text.push('@');
                push_word(chance, 5, text);
                text.push_str(".com");
            }
            Value::CreditCard => push_card(chance, text),
            Value::City => text.push_str(one_of(chance, &CITIES)),
            Value::State => text.push_str(one_of(chance, &STATES)),
            Value::ItemName => push_word(chance, 20, text),
            Value::Description => push_word(chance, 100, text),
            Value::Channel => push_channel(channel(chance), text),
            Value::Url => text.push_str(&self.urls[channel(chance).place()]),
            Value::Extra => self.push_extra(chance, text),
            other => unreachable!("{other:?} is no text"),
        }
    }

    /// What makes a row as long as the benchmark wants it, give or take a fifth.
    fn push_extra(&self, chance: &mut Chance, text: &mut String) {
        let wanted = match self.table {
            NexmarkTable::Person => PERSON_BYTES / 2,
            NexmarkTable::Auction => AUCTION_BYTES / 2,
            NexmarkTable::Bid => BID_BYTES - BID_NUMBER_BYTES,
        };
        let fifth = wanted / 5;
        let length = wanted - fifth + below(chance, 2 * fifth as u64) as usize;
        push_letters(chance, length, text);
    }
}

fn moment(event: u64) -> u64 {
    FIRST_EVENT_US + event * EVENT_GAP_US
}

fn below(chance: &mut Chance, end: u64) -> u64 {
    chance.between(0, end as i64 - 1).unsigned_abs()
}

fn one_of<'a>(chance: &mut Chance, values: &[&'a str]) -> &'a str {
    values[below(chance, values.len() as u64) as usize]
}

fn auction_of_bid(event: u64, chance: &mut Chance) -> u64 {
    let last = last_auction(event);
    if below(chance, HOT_AUCTIONS) > 0 {
        return FIRST_ID + last / HOT_GROUP * HOT_GROUP;
    }
    let first = last.saturating_sub(AUCTIONS_IN_FLIGHT);
    FIRST_ID + first + below(chance, last - first + 1 + LEAD)
}

/// `hot_place`: of a group, the person that is much asked for.
fn person(event: u64, chance: &mut Chance, hot_place: u64) -> u64 {
    let last = last_person(event);
    if below(chance, HOT_PERSONS) > 0 {
        return FIRST_ID + last / HOT_GROUP * HOT_GROUP + hot_place;
    }
    let count = last + 1;
    let active = count.min(ACTIVE_PERSONS);
    FIRST_ID + count - active + below(chance, active + LEAD)
}

/// Cents, small sums more often than great ones: 1 to 1,000,000 on a scale of powers of ten.
fn price(chance: &mut Chance) -> u64 {
    (10_f64.powf(chance.fraction() * 6.0) * 100.0).round() as u64
}

/// Where a bid was made.
#[derive(Clone, Copy)]
enum Channel {
    Hot(usize),
    /// Its number.
    Other(u64),
}

impl Channel {
    /// Among all channels: those that are much asked for are the last.
    fn place(self) -> usize {
        match self {
            Self::Hot(index) => CHANNELS as usize + index,
            Self::Other(number) => number as usize,
        }
    }
}

fn channel(chance: &mut Chance) -> Channel {
    if below(chance, HOT_CHANNELS) > 0 {
        return Channel::Hot(below(chance, HOT_CHANNEL_NAMES.len() as u64) as usize);
    }
    Channel::Other(below(chance, CHANNELS))
}

/// Numbers of channels do not follow each other.
fn scattered(number: u64) -> u32 {
    (number as u32).reverse_bits() >> 1
}

fn push_channel(channel: Channel, text: &mut String) {
    match channel {
        Channel::Hot(index) => text.push_str(HOT_CHANNEL_NAMES[index]),
        Channel::Other(number) => {
            text.push_str("channel-");
            push_number(u64::from(scattered(number)), text);
        }
    }
}

/// The URL of the channel at this place; of those that are not much asked for nine of ten name it.
fn url(place: u64) -> String {
    let mut chance = ColumnChance::new(0, "nexmark url").row(place);
    let mut text = String::from("https://www.nexmark.com/");
    for _ in 0..3 {
        push_word(&mut chance, 5, &mut text);
        text.push('/');
    }
    text.push_str("item.htm?query=1");
    if place < CHANNELS && below(&mut chance, 10) > 0 {
        text.push_str("&channel_id=");
        push_number(u64::from(scattered(place)), &mut text);
    }
    text
}

fn push_card(chance: &mut Chance, text: &mut String) {
    for group in 0..4 {
        if group > 0 {
            text.push(' ');
        }
        let digits = below(chance, 10_000);
        for unit in [1_000, 100, 10, 1] {
            text.push(char::from(b'0' + (digits / unit % 10) as u8));
        }
    }
}

fn push_number(number: u64, text: &mut String) {
    use std::fmt::Write;
    // A String takes everything.
    let _ = write!(text, "{number}");
}

/// A word of three letters to one below `length_end`, some of them underlines.
fn push_word(chance: &mut Chance, length_end: u64, text: &mut String) {
    const LENGTH_MIN: u64 = 3;
    let length = LENGTH_MIN + below(chance, length_end.saturating_sub(LENGTH_MIN).max(1));
    push_letters(chance, length as usize, text);
}

/// Eight letters from each number drawn: one byte is enough for one of 26, or, one time in thirteen, an underline.
fn push_letters(chance: &mut Chance, length: usize, text: &mut String) {
    const LETTERS: &[u8; 28] = b"abcdefghijklmnopqrstuvwxyz__";
    let mut left = length;
    while left > 0 {
        let drawn = chance.next().to_le_bytes();
        let count = left.min(drawn.len());
        let letters = drawn[..count].iter();
        let letters = letters.map(|byte| LETTERS[(usize::from(*byte) * LETTERS.len()) >> 8]);
        text.extend(letters.map(char::from));
        left -= count;
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;

    fn numbers(table: NexmarkTable, value: Value, rows: std::ops::Range<u64>) -> Vec<i64> {
        let made = NexmarkColumn::new(table, value, 7).values(rows, |_| true);
        made.as_primitive::<Int64Type>().values().to_vec()
    }

    fn texts(table: NexmarkTable, value: Value, rows: std::ops::Range<u64>) -> Vec<String> {
        let made = NexmarkColumn::new(table, value, 7).values(rows, |_| true);
        let texts = made.as_string::<i32>().iter();
        texts
            .map(|text| text.unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn a_bid_names_an_auction_and_a_bidder_of_its_time() {
        let rows = 0..46_000;
        let auctions = numbers(NexmarkTable::Bid, Value::Auction, rows.clone());
        let bidders = numbers(NexmarkTable::Bid, Value::Bidder, rows.clone());
        for ((row, auction), bidder) in rows.zip(&auctions).zip(&bidders) {
            let event = NexmarkTable::Bid.event(row);
            let newest = (FIRST_ID + last_auction(event) + LEAD) as i64;
            assert!(
                (FIRST_ID as i64..=newest).contains(auction),
                "row {row}: {auction}"
            );
            let newest = (FIRST_ID + last_person(event) + LEAD) as i64;
            assert!(
                (FIRST_ID as i64..=newest).contains(bidder),
                "row {row}: {bidder}"
            );
        }
        let hot = auctions
            .iter()
            .filter(|auction| *auction % 100 == 0)
            .count();
        assert!(
            (23_000..24_000).contains(&hot),
            "half and a few more: {hot}"
        );
        let hot = bidders.iter().filter(|bidder| *bidder % 100 == 1).count();
        assert!((34_000..36_500).contains(&hot), "three of four: {hot}");
    }

    #[test]
    fn prices_are_spread_over_six_powers_of_ten() {
        let prices = numbers(NexmarkTable::Bid, Value::Price, 0..60_000);
        assert!(
            prices
                .iter()
                .all(|price| (100..=100_000_000).contains(price))
        );
        for power in 2..8 {
            let range = 10_i64.pow(power)..10_i64.pow(power + 1);
            let count = prices.iter().filter(|price| range.contains(price)).count();
            assert!((9_000..11_000).contains(&count), "{range:?}: {count}");
        }
    }

    #[test]
    fn a_channel_has_one_url_and_a_bid_is_about_as_long_as_the_benchmark_wants() {
        let rows = 0..20_000;
        let channels = texts(NexmarkTable::Bid, Value::Channel, rows.clone());
        let urls = texts(NexmarkTable::Bid, Value::Url, rows.clone());
        let mut known = std::collections::BTreeMap::new();
        for (channel, url) in channels.iter().zip(&urls) {
            assert_eq!(known.entry(channel).or_insert(url), &url, "{channel}");
        }
        let hot = channels.iter().filter(|name| !name.starts_with("channel-"));
        assert!((9_500..10_500).contains(&hot.count()));
        let extras = texts(NexmarkTable::Bid, Value::Extra, rows);
        let sum: usize = extras.iter().map(String::len).sum();
        assert!((66..70).contains(&(sum / extras.len())), "{sum}");
    }

    #[test]
    fn an_auction_expires_behind_its_beginning_and_its_reserve_is_above_its_first_bid() {
        let rows = 0..3_000;
        let of = |value| numbers(NexmarkTable::Auction, value, rows.clone());
        let mut pairs = of(Value::DateTime).into_iter().zip(of(Value::Expires));
        assert!(pairs.all(|(begun, expires)| expires > begun));
        let mut first_bids = of(Value::InitialBid).into_iter().zip(of(Value::Reserve));
        assert!(first_bids.all(|(first_bid, reserve)| reserve > first_bid));
        let ids = of(Value::Id);
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }

    #[test]
    fn a_row_is_the_same_wherever_a_reader_begins() {
        let all = texts(NexmarkTable::Person, Value::Name, 0..100);
        let later = texts(NexmarkTable::Person, Value::Name, 60..100);
        assert_eq!(all[60..], later);
        let cards = texts(NexmarkTable::Person, Value::CreditCard, 0..3);
        assert!(cards.iter().all(|card| card.len() == 19), "{cards:?}");
    }
}
