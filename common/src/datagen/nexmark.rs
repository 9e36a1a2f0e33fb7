//! The tables of the Nexmark benchmark: what they are called, which columns they have, and which event of its stream a row is.
//!
//! Read by the planner, for what a job writes, and by the generator in the worker. After the benchmark's own description of its generator (Tucker,
//! Tufte, Papadimos, Maier, "NEXMark: a benchmark for queries over data streams", 2008, and the configuration that its users share): of 50
//! events the first is a person, three are auctions, 46 are bids, one every 100 us of event time. Pure; cannot fail.

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// Events until their kinds come round again.
const ROUND: u64 = 50;
/// Persons of a round; they come first.
const PERSONS: u64 = 1;
/// Auctions of a round, behind the persons.
const AUCTIONS: u64 = 3;
const BIDS: u64 = ROUND - PERSONS - AUCTIONS;
/// Event time from one event to the next, in microseconds.
pub const EVENT_GAP_US: u64 = 100;

/// One of the three tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NexmarkTable {
    /// Who sells and bids.
    Person,
    /// What is sold.
    Auction,
    /// What is offered for it.
    Bid,
}

/// What a column of a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the benchmark's own names")]
pub enum NexmarkValue {
    Id,
    Name,
    EmailAddress,
    CreditCard,
    City,
    State,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    Seller,
    Category,
    Auction,
    Bidder,
    Price,
    Channel,
    Url,
    DateTime,
    Extra,
}

use NexmarkValue as Value;

/// The column's name and what it holds.
type Columns = &'static [(&'static str, NexmarkValue)];

const PERSON: Columns = &[
    ("id", Value::Id),
    ("name", Value::Name),
    ("email_address", Value::EmailAddress),
    ("credit_card", Value::CreditCard),
    ("city", Value::City),
    ("state", Value::State),
    ("date_time", Value::DateTime),
    ("extra", Value::Extra),
];
const AUCTION: Columns = &[
    ("id", Value::Id),
    ("item_name", Value::ItemName),
    ("description", Value::Description),
    ("initial_bid", Value::InitialBid),
    ("reserve", Value::Reserve),
    ("date_time", Value::DateTime),
    ("expires", Value::Expires),
    ("seller", Value::Seller),
    ("category", Value::Category),
    ("extra", Value::Extra),
];
const BID: Columns = &[
    ("auction", Value::Auction),
    ("bidder", Value::Bidder),
    ("price", Value::Price),
    ("channel", Value::Channel),
    ("url", Value::Url),
    ("date_time", Value::DateTime),
    ("extra", Value::Extra),
];

impl NexmarkTable {
    /// By the name that a job gives it.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("person", Self::Person),
        ("auction", Self::Auction),
        ("bid", Self::Bid),
    ];

    /// Its columns.
    pub fn columns(self) -> Columns {
        match self {
            Self::Person => PERSON,
            Self::Auction => AUCTION,
            Self::Bid => BID,
        }
    }

    /// What the column of this name holds. Words of a name may be written with or without the line between them.
    pub fn value(self, name: &str) -> Option<NexmarkValue> {
        let folded = |name: &str| name.replace('_', "").to_lowercase();
        let mut columns = self.columns().iter();
        let found = columns.find(|(known, _)| folded(known) == folded(name));
        found.map(|(_, value)| *value)
    }

    /// The number of the event that is row `row` of this table; both are counted from 0.
    pub fn event(self, row: u64) -> u64 {
        let (first, count) = match self {
            Self::Person => (0, PERSONS),
            Self::Auction => (PERSONS, AUCTIONS),
            Self::Bid => (PERSONS + AUCTIONS, BIDS),
        };
        (row / count) * ROUND + first + row % count
    }
}

impl NexmarkValue {
    /// The type of its column.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Id
            | Self::InitialBid
            | Self::Reserve
            | Self::Seller
            | Self::Category
            | Self::Auction
            | Self::Bidder
            | Self::Price => DataType::Int64,
            Self::DateTime | Self::Expires => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => DataType::Utf8,
        }
    }
}

/// How many persons there have been up to this event, it included, but for the first.
pub fn last_person(event: u64) -> u64 {
    event / ROUND
}

/// The same of auctions; before there was one, the first.
pub fn last_auction(event: u64) -> u64 {
    let (round, place) = (event / ROUND, event % ROUND);
    match place.checked_sub(PERSONS) {
        // The round's own auctions have not begun.
        None => (round * AUCTIONS).saturating_sub(1),
        Some(place) => round * AUCTIONS + place.min(AUCTIONS - 1),
    }
}

/// Events within which so many auctions begin.
pub fn events_of_auctions(count: u64) -> u64 {
    count * ROUND / AUCTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_row_of_one_table() {
        let mut events: Vec<u64> = Vec::new();
        for (table, rows) in [
            (NexmarkTable::Person, 4),
            (NexmarkTable::Auction, 12),
            (NexmarkTable::Bid, 184),
        ] {
            events.extend((0..rows).map(|row| table.event(row)));
        }
        events.sort_unstable();
        assert!(events.into_iter().eq(0..200));
    }

    #[test]
    fn the_last_auction_is_that_of_the_events_so_far() {
        let mut begun = 0_u64;
        for event in 0..500 {
            if (PERSONS..PERSONS + AUCTIONS).contains(&(event % ROUND)) {
                begun += 1;
            }
            assert_eq!(
                last_auction(event),
                begun.saturating_sub(1),
                "event {event}"
            );
        }
    }

    #[test]
    fn columns_are_found_by_either_spelling() {
        let person = NexmarkTable::Person;
        assert_eq!(person.value("email_address"), Some(Value::EmailAddress));
        assert_eq!(person.value("emailaddress"), Some(Value::EmailAddress));
        assert_eq!(person.value("price"), None);
    }
}
