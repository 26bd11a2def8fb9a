//! Who reaches which folder through groups within groups: a recursive query over a graph that changes.
//!
//! ```text
//!   members: ann ∈ editors, editors ∈ staff ─▶ iterate ─▶ ann ∈ editors, ann ∈ staff, editors ∈ staff ─┐
//!   grants:  staff ▶ /handbook ──────────────────────────────── join ◀─────────────────────────────────┘
//!                                                                 └─▶ views access, reach
//! ```
//!
//! When a membership ends, what followed from it alone goes, and what follows from others stays. Groups may
//! contain each other.

use dataflows::Random;
use thalweg::demo::Demo;
use thalweg::prelude::*;

/// A user or group that belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Membership {
    member: String,
    of: String,
}

/// A folder that a user or group may read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Grant {
    to: String,
    folder: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Access {
    member: String,
    folder: String,
}

fn reach(flow: Dataflow) {
    let members = Kafka::topic("access.members.v1")
        .avro::<Membership>()
        .keyed::<i32>();
    let members = flow.table("members", members).key_named("id");
    let grants = Kafka::topic("access.grants.v1").avro::<Grant>().keyed::<i32>();
    let grants = flow.table("grants", grants).key_named("id");

    let direct = members.rows().map(|(_, m)| (m.of, m.member));
    // Groups, with all that are in them through any number of others.
    let within = direct.iterate("within", |scope, within| {
        let direct = scope.bring(&direct);
        let by_member = within.map(|(group, member)| (member, group));
        let further = by_member.join(&direct, |_, group, member| (group.clone(), member.clone()));
        further.concat(&direct).distinct("pairs")
    });
    let granted = grants.rows().map(|(_, g)| (g.to, g.folder));
    let themselves = granted.map(|(to, folder)| Access { member: to, folder });
    let access = granted
        .join(&within, |_, folder, member| Access {
            member: member.clone(),
            folder: folder.clone(),
        })
        .concat(&themselves)
        .distinct("access");
    access.view("access");
    access
        .group_by("member", |access| access.member.clone())
        .aggregate("reach", |a| a.count())
        .view_with("reach", |view| view.fields(["folders"]));
}

/// The dataflow, with demo data.
fn flow() -> thalweg::Flow {
    dataflow("reach", reach).demo(
        demo,
        &[
            "/v1/views/reach/rows?order=-folders&limit=5",
            "/v1/views/access/rows?member=user-7&limit=5",
        ],
    )
}

fn main() -> ExitCode {
    thalweg::main([flow()])
}

const USERS: u64 = 1000;
const GROUPS: u64 = 100;
const FOLDERS: u64 = 300;
const MEMBERSHIP: &str = include_str!("../../schemas/access.members.v1.avsc");
const GRANT: &str = include_str!("../../schemas/access.grants.v1.avsc");

/// A thousand users in a hundred groups, which are in each other in four levels; then users change groups.
fn demo(demo: &Demo) -> Result<()> {
    let members = demo.avro("access.members.v1", 2, Some(r#""int""#), MEMBERSHIP)?;
    let grants = demo.avro("access.grants.v1", 1, Some(r#""int""#), GRANT)?;
    let (members, grants) = (members.rows()?, grants.rows()?);
    let group = |number: u64| format!("group-{number}");
    for number in 1..GROUPS {
        let membership = Membership {
            member: group(number),
            of: group(number / 4),
        };
        members.send(&(number as i32), Some(&membership))?;
    }
    let mut random = Random::new(42);
    for number in 0..FOLDERS {
        let grant = Grant {
            to: group(random.below(GROUPS)),
            folder: format!("/folder-{number}"),
        };
        grants.send(&(number as i32), Some(&grant))?;
    }
    demo.paced(|id| {
        let user = id % USERS;
        let membership = Membership {
            member: format!("user-{user}"),
            of: group(random.below(GROUPS)),
        };
        // Once in a while a user has no group for a time.
        let row = (!random.one_in(20)).then_some(&membership);
        members.send(&((GROUPS + user) as i32), row)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use thalweg::testing::Harness;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        member: String,
        folder: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Reach {
        member: String,
        folders: u64,
    }

    fn membership(member: &str, of: &str) -> Option<Membership> {
        let (member, of) = (member.into(), of.into());
        Some(Membership { member, of })
    }

    fn grant(to: &str, folder: &str) -> Option<Grant> {
        let (to, folder) = (to.into(), folder.into());
        Some(Grant { to, folder })
    }

    #[test]
    fn what_followed_from_a_membership_alone_goes_with_it() {
        let mut test = Harness::of(flow());
        let members = [
            (1, membership("ann", "editors")),
            (2, membership("editors", "staff")),
            (3, membership("staff", "editors")),
            (4, membership("ann", "staff")),
        ];
        test.feed("members", 0, members);
        test.feed("grants", 0, [(1, grant("staff", "/handbook"))]);
        let both = test.epoch();
        test.feed("members", 0, [(1, None::<Membership>)]);
        let one = test.epoch();
        test.feed("members", 0, [(4, None::<Membership>)]);
        let none = test.epoch();
        let run = test.workers(2).run().unwrap();
        let members = |epoch| {
            let rows = run.rows::<Row>("access", epoch).unwrap();
            let members: Vec<String> = rows.into_iter().map(|row| row.member).collect();
            members.join(" ")
        };
        assert_eq!(members(both), "ann editors staff");
        assert_eq!(members(one), "ann editors staff");
        // A group that is in a group that is in it.
        assert_eq!(members(none), "editors staff");
    }

    /// Folders of everybody, found by walking the graph from each folder.
    fn naive(
        members: &BTreeMap<i32, Membership>,
        grants: &BTreeMap<i32, Grant>,
    ) -> BTreeSet<(String, String)> {
        let mut access = BTreeSet::new();
        for grant in grants.values() {
            let mut open = vec![grant.to.clone()];
            while let Some(at) = open.pop() {
                if access.insert((at.clone(), grant.folder.clone())) {
                    let inside = members.values().filter(|m| m.of == at);
                    open.extend(inside.map(|m| m.member.clone()));
                }
            }
        }
        access
    }

    #[test]
    fn access_is_what_a_walk_through_the_graph_finds() {
        for seed in 0..6 {
            let mut random = Random::new(seed);
            let mut test = Harness::of(flow());
            test.workers(1 + seed as usize % 3);
            let (mut members, mut grants) = (BTreeMap::new(), BTreeMap::new());
            let mut epochs = Vec::new();
            let name = |random: &mut Random| format!("n{}", random.below(8));
            for _ in 0..12 {
                for _ in 0..3 {
                    let id = random.below(12) as i32;
                    if random.one_in(3) {
                        members.remove(&id);
                        test.feed("members", 0, [(id, None::<Membership>)]);
                    } else {
                        let row = membership(&name(&mut random), &name(&mut random)).unwrap();
                        members.insert(id, row.clone());
                        test.feed("members", 0, [(id, Some(row))]);
                    }
                }
                let id = random.below(4) as i32;
                let row = grant(&name(&mut random), &format!("/{}", random.below(3))).unwrap();
                grants.insert(id, row.clone());
                test.feed("grants", 0, [(id, Some(row))]);
                epochs.push((test.epoch(), naive(&members, &grants)));
            }
            let run = test.run().unwrap();
            for (epoch, expected) in epochs {
                let rows = run.rows::<Row>("access", epoch).unwrap();
                let rows: BTreeSet<_> = rows.into_iter().map(|row| (row.member, row.folder)).collect();
                assert_eq!(rows, expected, "seed {seed}, {epoch}");
                let mut counts = BTreeMap::new();
                for (member, _) in &expected {
                    *counts.entry(member.clone()).or_default() += 1;
                }
                let counts = counts
                    .into_iter()
                    .map(|(member, folders)| Reach { member, folders });
                assert_eq!(
                    run.rows::<Reach>("reach", epoch).unwrap(),
                    counts.collect::<Vec<_>>()
                );
            }
        }
    }
}
