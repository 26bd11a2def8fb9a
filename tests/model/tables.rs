//! Tables: upserts, joins, and aggregates of groups that take values back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg::prelude::*;
use thalweg::testing::Harness;

use super::log::{EPOCHS, Given, Log, Rows, check, config, logs, runs};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct User {
    city: u32,
    age: i64,
    height: F64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct City {
    name: String,
}

/// The greatest age but one, or the greatest: can't be undone, so its groups are folded anew.
struct Second;
impl Aggregate<(u32, User)> for Second {
    type State = Vec<i64>;
    type Out = i64;
    fn empty(&self) -> Vec<i64> {
        Vec::new()
    }
    fn add(&self, state: &mut Vec<i64>, (_, user): &(u32, User)) {
        self.merge(state, vec![user.age]);
    }
    fn merge(&self, state: &mut Vec<i64>, other: Vec<i64>) {
        state.extend(other);
        state.sort_unstable_by(|a, b| b.cmp(a));
        state.truncate(2);
    }
    fn finish(&self, state: &Vec<i64>) -> i64 {
        *state.last().expect("a group has a value")
    }
}

fn build(flow: Dataflow) {
    let users = flow
        .table("users", Kafka::topic("u").json::<User>().keyed::<u32>())
        .key_named("user");
    let cities = flow.table("cities", Kafka::topic("c").json::<City>().keyed::<u32>());
    users.view("users_view");
    users
        .map(|key, user| user.age + i64::from(*key))
        .filter(|_, age| *age > 3)
        .view("older");
    users
        .filter_map(|key, user| (user.city != *key).then_some(user.age))
        .view("elsewhere");
    users
        .join("same", &cities, |_, user, city| (user.age, city.name.clone()))
        .view("same_view");
    users
        .left_join("same_left", &cities, |_, user, city| {
            (user.age, city.map(|c| c.name.clone()))
        })
        .view("same_left_view");
    let home = users.join_on(
        "home",
        &cities,
        |_, user| user.city,
        |_, user, city| (user.age, city.name.clone()),
    );
    home.view("home_view");
    let home_left = users.left_join_on(
        "home_left",
        &cities,
        |_, u| u.city,
        |_, u, city| (u.age, city.map(|c| c.name.clone())),
    );
    home_left.view("home_left_view");
    home.group_by("name", |_, (_, name)| name.clone())
        .aggregate("names", |a| a.count())
        .view("names_view");
    users
        .group_by("city", |_, user| user.city)
        .aggregate("undone", |a| {
            (
                a.count(),
                a.sum(|(_, u)| u.age),
                a.avg(|(_, u)| u.age),
                a.sum(|(_, u)| u.height),
            )
        })
        .view("undone_view");
    users
        .group_by("city", |_, user| user.city)
        .aggregate("refolded", |a| {
            (
                a.min(|(_, u)| u.age),
                a.max(|(_, u)| (u.age, u.height)),
                Second,
                a.count(),
            )
        })
        .view("refolded_view");
}

/// A table as of each epoch: what an apprentice with a pencil would come to.
pub(super) fn states<V: Clone>(log: &Log<(u32, Option<V>)>) -> Vec<BTreeMap<u32, V>> {
    let mut state = BTreeMap::new();
    let after = |epoch: usize| {
        for partition in 0..log.partitions {
            for (_, given) in log.epochs[epoch].records.iter().filter(|(p, _)| *p == partition) {
                match given {
                    Given::Value((key, Some(value))) => _ = state.insert(*key, value.clone()),
                    Given::Value((key, None)) => _ = state.remove(key),
                    Given::Undecodable => {}
                }
            }
        }
        state.clone()
    };
    (0..EPOCHS).map(after).collect()
}

fn undecodable<T>(log: &Log<T>, epoch: usize) -> Rows {
    let mut rows = Vec::new();
    for partition in 0..log.partitions {
        let of = |(n, step): (usize, &super::log::Step<T>)| {
            let own = step.records.iter().filter(|(p, _)| *p == partition);
            own.map(|(_, given)| (n, matches!(given, Given::Undecodable)))
                .collect::<Vec<_>>()
        };
        let records = log.epochs.iter().enumerate().flat_map(of);
        let dead = (0i64..)
            .zip(records)
            .filter(|(_, (n, dead))| *dead && *n <= epoch);
        rows.extend(
            dead.map(
                |(offset, _)| json!({ "partition": partition, "offset": offset, "cause": "json_syntax" }),
            ),
        );
    }
    rows
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tables_as_defined(
        users in logs(
            (0u32..5, prop::option::weighted(0.7, (0u32..4, 0i64..6, prop::sample::select(vec![0.1, 0.2, 1e20, -1e20, 1.7])))),
            |_, (key, user)| (key, user.map(|(city, age, height)| User { city, age, height: F64::new(height) })),
        ),
        cities in logs(
            (0u32..4, prop::option::weighted(0.7, 0u8..3)),
            |_, (key, name)| (key, name.map(|name| City { name: format!("city {name}") })),
        ),
        runs in runs(),
    ) {
        let (all_users, all_cities) = (states(&users), states(&cities));
        let mut expected: BTreeMap<&str, Vec<Rows>> = BTreeMap::new();
        for n in 0..EPOCHS {
            let (now, towns) = (&all_users[n], &all_cities[n]);
            let name = |city: &u32| towns.get(city).map(|city| city.name.clone());
            let pair = |key: &u32, age: i64, name: Option<String>| json!({ "user": key, "value_0": age, "value_1": name });
            let mut put = |view, rows: Rows| expected.entry(view).or_default().push(rows);
            put("users_view", now.iter().map(|(key, u)| json!({
                "user": key, "city": u.city, "age": u.age, "height": u.height.get()
            })).collect());
            let older = now.iter().map(|(key, u)| (key, u.age + i64::from(*key))).filter(|(_, age)| *age > 3);
            put("older", older.map(|(key, age)| json!({ "user": key, "value": age })).collect());
            let elsewhere = now.iter().filter(|(key, u)| u.city != **key);
            put("elsewhere", elsewhere.map(|(key, u)| json!({ "user": key, "value": u.age })).collect());
            let same = now.iter().filter_map(|(key, u)| Some(pair(key, u.age, Some(name(key)?))));
            put("same_view", same.collect());
            put("same_left_view", now.iter().map(|(key, u)| pair(key, u.age, name(key))).collect());
            let home: Vec<_> = now.iter().filter_map(|(key, u)| Some((key, u.age, name(&u.city)?))).collect();
            put("home_view", home.iter().map(|(key, age, name)| pair(key, *age, Some(name.clone()))).collect());
            put("home_left_view", now.iter().map(|(key, u)| pair(key, u.age, name(&u.city))).collect());
            let mut names: BTreeMap<&String, u64> = BTreeMap::new();
            home.iter().for_each(|(_, _, name)| *names.entry(name).or_default() += 1);
            put("names_view", names.iter().map(|(name, n)| json!({ "name": name, "value": n })).collect());

            let mut groups: BTreeMap<u32, Vec<&User>> = BTreeMap::new();
            now.values().for_each(|user| groups.entry(user.city).or_default().push(user));
            let undone = groups.iter().map(|(city, users)| {
                let sum: i64 = users.iter().map(|u| u.age).sum();
                // Whatever 1e20 stands for cancels or swamps: sums of so few values are exact in 256 bits of
                // decimals.
                let heights = users.iter().map(|u| u.height.get());
                let (large, small): (Vec<f64>, Vec<f64>) = heights.partition(|h| h.abs() > 1e19);
                let large: f64 = large.iter().sum();
                let height = large + tenths(&small);
                json!({
                    "city": city, "value_0": users.len(), "value_1": sum, "value_2": sum as f64 / users.len() as f64,
                    "value_3": height,
                })
            });
            put("undone_view", undone.collect());
            let refolded = groups.iter().map(|(city, users)| {
                let mut ages: Vec<i64> = users.iter().map(|u| u.age).collect();
                ages.sort_unstable();
                let max = users.iter().map(|u| (u.age, u.height)).max().expect("a group has a value");
                json!({
                    "city": city, "value_0": ages[0], "value_1": [json!(max.0), json!(max.1.get())],
                    "value_2": ages[ages.len().saturating_sub(2)], "value_3": users.len(),
                })
            });
            put("refolded_view", refolded.collect());
            put("users.dead_letters", undecodable(&users, n));
            put("cities.dead_letters", undecodable(&cities, n));
        }
        let project = |view: &str, row: Value| {
            let Value::Object(mut row) = row else { return row };
            if view.ends_with(".dead_letters") {
                row.retain(|name, _| ["partition", "offset", "cause"].contains(&name.as_str()));
            }
            Value::Object(row)
        };
        let feed = |test: &mut Harness, n: usize| {
            users.feed_backwards(test, "users", n);
            cities.feed_backwards(test, "cities", n);
        };
        check(&dataflow("tables", build), &runs, feed, &expected, project)?;
    }
}

/// The correctly rounded sum of a few of 0.1, 0.2 and 1.7: each is an integer times 2^-56, and so is the sum.
fn tenths(values: &[f64]) -> f64 {
    let unit = 2f64.powi(56);
    values.iter().map(|value| (value * unit) as i128).sum::<i128>() as f64 / unit
}
