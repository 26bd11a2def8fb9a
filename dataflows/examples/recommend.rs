//! Personalisation of a shop: what a user looked at last, what others looked at besides, and what to show.
//!
//! ```text
//!   views ─┬─ newest of (user, item) ── top 5 by user ─────────▶ view recent ──────────┐
//!          ├─ interval join with itself ── top 3 by item ──────▶ view viewed_with ─────┤
//!          │                                  join, without what the user has seen ◀───┘
//!          │                                            └── top 3 by user ─────────────▶ view recommended
//!          └─ lookup of the category ── by user, an hour, every ten minutes ───────────▶ view features
//!   items ──────┴── titles of all that is shown
//! ```

use dataflows::Random;
use thalweg::demo::{Demo, now};
use thalweg::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct ItemView {
    user: i32,
    item: i32,
    at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Item {
    title: String,
    category: String,
}

/// An item that is shown to somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Shown {
    item: i32,
    title: String,
    /// What it is ranked by.
    score: i64,
}

const VISIT: Duration = Duration::from_secs(1800);

fn recommend(flow: Dataflow) {
    let views = Kafka::topic("shop.views.v1")
        .avro::<ItemView>()
        .event_time(|v| EventTime::from_millis(v.at_ms))
        .lateness(Duration::from_secs(2));
    let views = flow.source("views", views);
    let items = Kafka::topic("shop.items.v1").avro::<Item>().keyed::<i32>();
    let items = flow.table("items", items).key_named("item");

    let seen = views
        .key_by(["user", "item"], |v| (v.user, v.item))
        .aggregate_all("seen", |a| a.max(|v| v.at_ms));
    let recent = seen
        .group_by("user", |(user, _), _| *user)
        .top_k("recent", 5, |(_, at_ms)| *at_ms);
    recent
        .join_on(
            "recent_items",
            &items,
            |_, ((_, item), _)| *item,
            |_, ((_, item), at_ms), known| shown(item, at_ms, known),
        )
        .view("recent");

    let viewed_with = viewed_with(&views);
    viewed_with
        .join_on(
            "viewed_with_items",
            &items,
            |_, (other, _)| *other,
            |_, (other, n), known| shown(other, n, known),
        )
        .view("viewed_with");

    // Each recent item votes for those that are viewed with it.
    let recent_items = recent.rows().map(|(place, ((_, item), _))| (item, place.key));
    let votes = viewed_with
        .rows()
        .map(|(place, vote)| (place.key, vote))
        .join(&recent_items, |_, (other, n), user| ((*user, *other), *n));
    votes
        .antijoin(&seen.rows().map(|(user_item, _)| user_item))
        .group_by(["user", "item"], |(user_item, _)| *user_item)
        .aggregate("votes", |a| a.sum(|(_, n)| *n).checked::<i64>())
        .flatten()
        .group_by("user", |(user, _), _| *user)
        .top_k("recommended", 3, |(_, votes)| *votes)
        .join_on(
            "recommended_items",
            &items,
            |_, ((_, item), _)| *item,
            |_, ((_, item), votes), known| shown(item, votes, known),
        )
        .view("recommended");

    features(&views, &items);
}

fn shown(item: i32, score: i64, known: &Item) -> Shown {
    let title = known.title.clone();
    Shown { item, title, score }
}

/// For each item the three others that most views were near to: by the same user, at most half an hour apart.
fn viewed_with<'s>(views: &Stream<'s, ItemView>) -> Table<'s, Ranked<i32>, (i32, i64)> {
    let by_user = || views.key_by("user", |v: &ItemView| v.user);
    let near = Interval::before(VISIT);
    by_user()
        .interval_join("pairs", &by_user(), near, |_, now, before| {
            (now.item, before.item)
        })
        .filter(|(item, other)| item != other)
        .flat_map(|(item, other)| [(item, other), (other, item)])
        .key_by(["viewed", "other"], |pair| *pair)
        .aggregate_all("together", |a| a.count())
        .group_by("viewed", |(item, _), _| *item)
        .top_k("viewed_with", 3, |(_, n)| *n)
        .map(|_, ((_, other), n)| (other, n as i64))
}

/// What a model is given of each user: numbers of the last hour.
fn features<'s>(views: &Stream<'s, ItemView>, items: &Table<'s, i32, Item>) {
    views
        .key_by("item", |v| v.item)
        .lookup("categories", items, |_, view, item| {
            (view.user, view.item, item.map(|item| item.category.clone()))
        })
        .key_by("user", |(user, ..)| *user)
        .window(
            "features",
            Hopping::of(Duration::from_secs(3600)).every(Duration::from_secs(600)),
        )
        .keep(Duration::from_secs(3600))
        .aggregate(|a| {
            (
                a.count(),
                a.count_distinct(|(_, item, _)| *item),
                a.count_distinct(|(_, _, category)| category.clone()),
                a.rate(|(_, _, category)| category.as_deref() == Some("books")),
            )
        })
        .view_with("features", |view| {
            view.fields(["views", "items", "categories", "of_books"])
        });
}

/// The dataflow, with demo data.
fn flow() -> thalweg::Flow {
    dataflow("recommend", recommend).demo(
        demo,
        &[
            "/v1/views/recent/rows?user=7",
            "/v1/views/viewed_with/rows?viewed=7",
            "/v1/views/recommended/rows?user=7",
            "/v1/views/features/rows?user=7&window=open",
        ],
    )
}

fn main() -> ExitCode {
    thalweg::main([flow()])
}

const USERS: u64 = 2000;
const ITEMS: u64 = 500;
const PARTITIONS: u32 = 4;
const VIEW: &str = include_str!("../../schemas/shop.views.v1.avsc");
const ITEM: &str = include_str!("../../schemas/shop.items.v1.avsc");
const CATEGORIES: [&str; 5] = ["books", "boots", "lamps", "tents", "tools"];

/// Views by two thousand users, each of whom mostly looks at a few neighbouring items.
fn demo(demo: &Demo) -> Result<()> {
    let items = demo.avro("shop.items.v1", 1, Some(r#""int""#), ITEM)?;
    let views = demo.avro("shop.views.v1", PARTITIONS, None, VIEW)?;
    let rows = items.rows()?;
    for item in 0..ITEMS {
        let category = CATEGORIES[(item / 100) as usize];
        let item_row = Item {
            title: format!("{category} no. {}", item % 100),
            category: category.into(),
        };
        rows.send(&(item as i32), Some(&item_row))?;
    }
    let mut views = views.events()?;
    let mut random = Random::new(42);
    demo.paced(|id| {
        let user = random.skewed(USERS);
        let item = match random.one_in(10) {
            true => random.below(ITEMS),
            false => (user * 7 + random.skewed(12)) % ITEMS,
        };
        let view = ItemView {
            user: user as i32,
            item: item as i32,
            at_ms: now().millis(),
        };
        views.send(id as u32, &view)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use thalweg::testing::Harness;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Recommended {
        user: i32,
        item: i32,
        score: i64,
    }

    /// What is recommended after some views, computed from all of them: user, item, score.
    fn naive(views: &[ItemView]) -> Vec<(i32, i32, i64)> {
        let mut seen = BTreeMap::<i32, BTreeMap<i32, i64>>::new();
        let mut together = BTreeMap::<i32, BTreeMap<i32, i64>>::new();
        for (at, view) in views.iter().enumerate() {
            let newest = seen
                .entry(view.user)
                .or_default()
                .entry(view.item)
                .or_insert(i64::MIN);
            *newest = view.at_ms.max(*newest);
            // Those before it in time, or at the same time: then both come before each other.
            for (other_at, other) in views.iter().enumerate() {
                let before = view.at_ms - other.at_ms;
                let is_near = other_at != at && (0..=1_800_000).contains(&before);
                if is_near && other.user == view.user && other.item != view.item {
                    *together
                        .entry(view.item)
                        .or_default()
                        .entry(other.item)
                        .or_default() += 1;
                    *together
                        .entry(other.item)
                        .or_default()
                        .entry(view.item)
                        .or_default() += 1;
                }
            }
        }
        let first = |of: &BTreeMap<i32, i64>, k: usize| {
            let mut all: Vec<(i32, i64)> = of.iter().map(|(item, by)| (*item, *by)).collect();
            all.sort_by_key(|(item, by)| (std::cmp::Reverse(*by), *item));
            all.truncate(k);
            all
        };
        let mut recommended = Vec::new();
        for (user, items) in &seen {
            let mut votes = BTreeMap::new();
            for (item, _) in first(items, 5) {
                for (other, n) in together.get(&item).map(|of| first(of, 3)).unwrap_or_default() {
                    if !items.contains_key(&other) {
                        *votes.entry(other).or_default() += n;
                    }
                }
            }
            recommended.extend(first(&votes, 3).into_iter().map(|(item, n)| (*user, item, n)));
        }
        recommended
    }

    fn item(number: i32) -> (i32, Option<Item>) {
        let item = Item {
            title: format!("Item {number}"),
            category: if number % 2 == 0 { "books" } else { "tools" }.into(),
        };
        (number, Some(item))
    }

    #[test]
    fn recommended_is_what_a_program_over_all_views_finds() {
        let mut found = BTreeSet::new();
        for seed in 0..6 {
            let mut random = Random::new(seed);
            let mut test = Harness::of(flow());
            test.workers(1 + seed as usize % 3)
                .feed("items", 0, (0..12).map(item));
            let (mut sent, mut epochs) = (Vec::new(), Vec::new());
            for epoch in 0..8 {
                for _ in 0..random.below(12) {
                    let view = ItemView {
                        user: random.below(5) as i32,
                        item: random.below(12) as i32,
                        at_ms: epoch * 400_000 + random.below(2000) as i64,
                    };
                    test.feed("views", 0, [view.clone()]);
                    sent.push(view);
                }
                epochs.push((test.epoch(), sent.clone()));
            }
            let run = test.run().unwrap();
            for (epoch, sent) in epochs {
                let rows = run.rows::<Recommended>("recommended", epoch).unwrap();
                let rows: Vec<_> = rows.iter().map(|row| (row.user, row.item, row.score)).collect();
                assert_eq!(rows, naive(&sent), "seed {seed}, {epoch}");
                found.extend(rows);
            }
        }
        assert!(found.len() > 50, "too few recommendations to compare");
    }

    #[test]
    fn features_are_of_the_last_hour_and_of_known_items() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Features {
            user: i32,
            views: u64,
            items: u64,
            categories: u64,
            of_books: f64,
        }
        let mut test = Harness::of(flow());
        let view = |item, seconds: i64| ItemView {
            user: 7,
            item,
            at_ms: seconds * 1000,
        };
        test.feed("items", 0, (0..4).map(item));
        test.feed(
            "views",
            0,
            [view(0, 3600), view(2, 3601), view(2, 3602), view(1, 3603)],
        );
        let epoch = test.epoch();
        let run = test.run().unwrap();
        let rows = run.rows::<Features>("features", epoch).unwrap();
        let features = Features {
            user: 7,
            views: 4,
            items: 3,
            categories: 2,
            of_books: 0.75,
        };
        assert_eq!(rows.len(), 6);
        assert!(rows.iter().all(|row| *row == features), "{rows:?}");
    }
}
