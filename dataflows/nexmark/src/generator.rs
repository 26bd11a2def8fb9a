//! The events of an auction house, made from a seed.
//!
//! ```text
//!   event n ─▶ n mod 50:  0 ─▶ person    1 2 3 ─▶ auction    4 … 49 ─▶ bid        at start + n / rate
//! ```
//!
//! An event follows from the seed and its number alone. So any part of the sequence can be made anywhere, and
//! again. Ids follow from the number as well: bids refer to auctions and people that are there by then, or
//! soon will be.
//!
//! Source: the generator of Apache Beam's NEXMark suite (`sdks/java/testing/nexmark`), from which the
//! proportions, the shares of hot items and the sizes are taken; channels and URLs are those of the suite at
//! <https://github.com/nexmark/nexmark>. The numbers drawn are others.

use dataflows::Random;
use thalweg::EventTime;

use crate::model::{Auction, Bid, Event, Person};

/// People, auctions and bids in a round of fifty events.
const PEOPLE: u64 = 1;
const AUCTIONS: u64 = 3;
const ROUND: u64 = 50;

const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// People who may bid or sell, and auctions that may be bid on: the newest ones.
const ACTIVE_PEOPLE: u64 = 1000;
const OPEN_AUCTIONS: u64 = 100;
/// How many ids ahead of those that were announced are used.
const LEAD: u64 = 10;
/// One of so many people and auctions is hot. Half of the bids go to a hot auction; a hot seller offers, and
/// a hot bidder bids, three times of four.
const HOT: u64 = 100;
const CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
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

/// A sequence of events.
///
/// ```
/// use nexmark::generator::Generator;
/// use nexmark::model::Event;
///
/// let generator = Generator::new(7).rate(1_000);
/// let bids = (0..1_000).filter(|n| matches!(generator.event(*n), Event::Bid(_))).count();
/// assert_eq!(bids, 920);
/// ```
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    start_ms: i64,
    rate: u64,
}

impl Generator {
    /// Ten thousand events a second of event time from 2026-01-01 on.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            start_ms: 1_767_225_600_000,
            rate: 10_000,
        }
    }

    /// The time of the first event, in whole milliseconds.
    pub fn starting_at(self, start: EventTime) -> Self {
        let start_ms = start.millis();
        Self { start_ms, ..self }
    }

    /// Events in a second of event time, at least one.
    pub fn rate(self, per_second: u64) -> Self {
        let rate = per_second.max(1);
        Self { rate, ..self }
    }

    /// The event of this number, from 0 on.
    pub fn event(&self, number: u64) -> Event {
        let mut random = Random::new(Random::new(self.seed ^ number.rotate_left(32)).bits());
        match number % ROUND {
            at if at < PEOPLE => Event::Person(self.person(number, &mut random)),
            at if at < PEOPLE + AUCTIONS => Event::Auction(self.auction(number, &mut random)),
            _ => Event::Bid(self.bid(number, &mut random)),
        }
    }

    fn time(&self, number: u64) -> i64 {
        self.start_ms + (u128::from(number) * 1000 / u128::from(self.rate)) as i64
    }

    fn person(&self, number: u64, random: &mut Random) -> Person {
        let name = format!("{} {}", random.pick(&FIRST_NAMES), random.pick(&LAST_NAMES));
        let email_address = format!("{}@{}.com", text(random, 7, ' '), text(random, 5, ' '));
        let digits: Vec<String> = (0..4).map(|_| format!("{:04}", random.below(10_000))).collect();
        let (city, state) = (*random.pick(&CITIES), *random.pick(&STATES));
        let size = 8 + name.len() + email_address.len() + 19 + city.len() + state.len();
        Person {
            id: (people_by(number) - 1 + FIRST_ID) as i64,
            name,
            email_address,
            credit_card: digits.join(" "),
            city: city.to_owned(),
            state: state.to_owned(),
            date_time: self.time(number),
            extra: padding(random, size, 200),
        }
    }

    fn auction(&self, number: u64, random: &mut Random) -> Auction {
        let last_person = people_by(number) - 1;
        let seller = match random.one_in(4) {
            true => active_person(number, random),
            false => last_person / HOT * HOT,
        };
        let (initial_bid, beyond) = (price(random), price(random));
        let (item_name, description) = (text(random, 20, ' '), text(random, 100, ' '));
        let size = 48 + item_name.len() + description.len();
        // On average until as many auctions have followed as are open at a time.
        let open_ms = OPEN_AUCTIONS * ROUND / AUCTIONS * 1000 / self.rate;
        let date_time = self.time(number);
        Auction {
            id: (auctions_by(number) - 1 + FIRST_ID) as i64,
            item_name,
            description,
            initial_bid,
            reserve: initial_bid + beyond,
            date_time,
            expires: date_time + 1 + random.below((open_ms * 2).max(1)) as i64,
            seller: (seller + FIRST_ID) as i64,
            category: (FIRST_CATEGORY + random.below(CATEGORIES)) as i64,
            extra: padding(random, size, 500),
        }
    }

    fn bid(&self, number: u64, random: &mut Random) -> Bid {
        let last_auction = auctions_by(number) - 1;
        let auction = match random.one_in(2) {
            true => {
                let first = last_auction.saturating_sub(OPEN_AUCTIONS);
                first + random.below(last_auction - first + 1 + LEAD)
            }
            false => last_auction / HOT * HOT,
        };
        let last_person = people_by(number) - 1;
        let bidder = match random.one_in(4) {
            true => active_person(number, random),
            // The second one of a hundred, as the first one is a hot seller.
            false => last_person / HOT * HOT + 1,
        };
        let price = price(random);
        let (channel, url) = match random.one_in(2) {
            true => channel(random.below(CHANNELS)),
            false => {
                let at = random.below(HOT_CHANNELS.len() as u64);
                (HOT_CHANNELS[at as usize].to_owned(), page(CHANNELS + at))
            }
        };
        Bid {
            auction: (auction + FIRST_ID) as i64,
            bidder: (bidder + FIRST_ID) as i64,
            price,
            channel,
            url,
            date_time: self.time(number),
            extra: padding(random, 32, 100),
        }
    }
}

/// People announced up to and including event `number`.
fn people_by(number: u64) -> u64 {
    number / ROUND * PEOPLE + (number % ROUND + 1).min(PEOPLE)
}

/// Auctions announced up to and including event `number`. The first person comes before the first auction,
/// and no bid before either.
fn auctions_by(number: u64) -> u64 {
    number / ROUND * AUCTIONS + (number % ROUND + 1).saturating_sub(PEOPLE).min(AUCTIONS)
}

fn active_person(number: u64, random: &mut Random) -> u64 {
    let people = people_by(number);
    let active = people.min(ACTIVE_PEOPLE);
    people - active + random.below(active + LEAD)
}

/// From one to a million dollars, in cents; each order of magnitude is as likely as another.
fn price(random: &mut Random) -> i64 {
    (10f64.powf(random.fraction() * 6.0) * 100.0).round() as i64
}

/// A channel that is not hot, and its page: always the same one, nine times of ten with the channel's id.
fn channel(number: u64) -> (String, String) {
    let id = (number as u32).reverse_bits().cast_signed().unsigned_abs();
    let id = match Random::new(number).one_in(10) {
        true => String::new(),
        false => format!("&channel_id={id}"),
    };
    (format!("channel-{number}"), page(number) + &id)
}

fn page(of: u64) -> String {
    let mut random = Random::new(!of);
    let directories: Vec<String> = (0..3).map(|_| text(&mut random, 5, '_')).collect();
    format!(
        "https://www.nexmark.com/{}/item.htm?query=1",
        directories.join("/")
    )
}

/// Three to `length_max` letters, here and there a special one, without blanks around.
fn text(random: &mut Random, length_max: u64, special: char) -> String {
    let length = 3 + random.below(length_max - 3);
    let letters = (0..length).map(|_| match random.one_in(13) {
        true => special,
        false => letter(random.bits()),
    });
    letters.collect::<String>().trim().to_owned()
}

fn letter(bits: u64) -> char {
    char::from(b'a' + (bits % 26) as u8)
}

/// As many letters as bring an event of `size` bytes to a size of `mean`, give or take a fifth of them.
fn padding(random: &mut Random, size: usize, mean: usize) -> String {
    let missing = mean.saturating_sub(size) as u64;
    let about = missing / 5;
    let length = missing - about + random.below((2 * about).max(1));
    // Twelve letters from one draw.
    let mut letters = String::with_capacity(length as usize + 12);
    while (letters.len() as u64) < length {
        let mut bits = random.bits();
        for _ in 0..12 {
            letters.push(letter(bits));
            bits /= 26;
        }
    }
    letters.truncate(length as usize);
    letters
}
