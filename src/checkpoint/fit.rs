//! How the steps of a dataflow meet those that a checkpoint holds.
//!
//! | a step of the dataflow | begins |
//! |---|---|
//! | alike in name, types, version and in all that it is made of | as the checkpoint has it |
//! | a view that is new | with its rows as of the checkpoint: restored steps give theirs once more |
//! | another that is new, of sources that are new, too | empty, which is what it would be |
//! | another that is new | empty, and so not as it would be: all state has to be made anew, or somebody has to accept that |
//! | changed | as one that is new, once somebody accepts that |
//! | made of something else, but of the same types | as changed; or, if somebody says so, as the checkpoint has it, and its views as new ones |
//!
//! A view of a step that begins empty would keep rows that nothing revises any more, so it begins as a new one, too.
//!
//! What a step is made of is every operator before it with all of its inputs: one more `filter` or `semijoin` makes other
//! rows. Closures can't be compared; for them steps declare versions. Checkpoints of builds that noted only the names of
//! steps, and only the first input of operators without a name, are held against names: what takes from no further named
//! step by such an operator goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{Rule, StepFiles, StepShape};

/// What becomes of each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// For every step of the dataflow, in order, the one of the checkpoint that it goes on from.
    pub held: Vec<Option<usize>>,
    /// Steps that are new and would have to count what came before the checkpoint, a line each.
    pub incomplete: Vec<String>,
    /// Steps that changed or are gone, a line for each difference.
    pub differences: Vec<String>,
    /// Views that are new.
    pub views: Vec<String>,
}

impl Fit {
    /// `knows`: whether the ledger has anything of a source.
    pub fn of(held: &[StepFiles], wanted: &[StepShape], knows: impl Fn(&str) -> bool) -> Self {
        Self::new(held, wanted, false, knows)
    }

    /// Like [`Fit::of`], where somebody says that other inputs come to the same state.
    pub fn keeping(held: &[StepFiles], wanted: &[StepShape], knows: impl Fn(&str) -> bool) -> Self {
        Self::new(held, wanted, true, knows)
    }

    fn new(held: &[StepFiles], wanted: &[StepShape], keeps: bool, knows: impl Fn(&str) -> bool) -> Self {
        let mut fit = Self {
            held: Vec::with_capacity(wanted.len()),
            incomplete: Vec::new(),
            differences: Vec::new(),
            views: Vec::new(),
        };
        let mut inputs = Inputs::default();
        let counterparts = counterparts(held, wanted);
        for (step, at) in wanted.iter().zip(&counterparts) {
            let Some(at) = *at else {
                match step.rule {
                    Rule::Versions => fit.views.push(step.name.clone()),
                    _ if step.from.iter().any(|name| knows(name)) => {
                        fit.incomplete.push(format!("{} is new", step.name));
                    }
                    _ => {}
                }
                fit.held.push(None);
                continue;
            };
            let was = &held[at].shape;
            let changes = changes(was, step);
            let is_made_alike = inputs.compare(was, step) || (keeps && step.rule != Rule::Versions);
            fit.held
                .push(Some(at).filter(|_| changes.is_empty() && is_made_alike));
            fit.differences.extend(changes);
        }
        fit.differences.extend(inputs.lines());
        let is_gone = |at: &usize| !counterparts.contains(&Some(*at));
        let gone = (0..held.len()).filter(is_gone).map(|at| &held[at].shape.name);
        fit.differences.extend(gone.map(|name| format!("{name} is gone")));
        fit.spread(wanted);
        fit
    }

    /// Views of what begins empty begin anew.
    fn spread(&mut self, wanted: &[StepShape]) {
        let empty: Vec<&str> = wanted
            .iter()
            .zip(&self.held)
            .filter(|(step, held)| held.is_none() && step.rule != Rule::Versions)
            .map(|(step, _)| step.step.as_str())
            .collect();
        for (step, held) in wanted.iter().zip(&mut self.held) {
            if step.rule == Rule::Versions && step.from.iter().any(|name| empty.contains(&name.as_str())) {
                *held = None;
            }
        }
    }

    /// Whether a start needs nobody's word.
    pub fn is_clear(&self) -> bool {
        self.incomplete.is_empty() && self.differences.is_empty()
    }

    /// What somebody has to decide about.
    pub fn questions(&self) -> Vec<String> {
        self.differences.iter().chain(&self.incomplete).cloned().collect()
    }
}

/// For every step of the dataflow the one of the checkpoint that it would go on from, if they are alike.
fn counterparts(held: &[StepFiles], wanted: &[StepShape]) -> Vec<Option<usize>> {
    let is_early = held.iter().all(|files| is_early(&files.shape));
    let early = is_early.then(|| early_names(wanted));
    let name = |at: usize| early.as_ref().map_or(&wanted[at].name, |names| &names[at]);
    let alike = |at| held.iter().position(|files| files.shape.name == *name(at));
    let mut found: Vec<_> = (0..wanted.len()).map(alike).collect();
    // Kept events are called by what they come from. If that alone is another, it has changed, and is not new.
    let missing = found.clone();
    for at in 0..wanted.len() {
        let is = |shape: &StepShape| shape.rule == Rule::Sum && shape.step == wanted[at].step;
        let new = only((0..wanted.len()).filter(|n| missing[*n].is_none() && is(&wanted[*n])));
        if new == Some(at) {
            let is_free = |n: &usize| !missing.contains(&Some(*n)) && is(&held[*n].shape);
            found[at] = only((0..held.len()).filter(is_free));
        }
    }
    found
}

/// The one that there is, if there is but one.
fn only(mut all: impl Iterator<Item = usize>) -> Option<usize> {
    all.next().filter(|_| all.next().is_none())
}

/// Whether it was made by a build that noted only names.
fn is_early(shape: &StepShape) -> bool {
    shape.definitions.is_empty()
}

/// What those builds called steps: kept events by the last named step, with a number by what was built before.
fn early_names(wanted: &[StepShape]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for step in wanted {
        let mut name = step.name.clone();
        if step.rule == Rule::Sum {
            name = format!("changes {}", step.step);
            match names.iter().filter(|other| other.starts_with(&name)).count() {
                0 => {}
                n => name = format!("{name} #{}", n + 1),
            }
        }
        names.push(name);
    }
    names
}

/// In which ways a step's state is not what it was, a line each.
fn changes(was: &StepShape, is: &StepShape) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, was: String, is_now: String| {
        if was != is_now {
            lines.push(format!("{}: {what} was {was}, is {is_now}", is.name));
        }
    };
    compare("the version", was.version.to_string(), is.version.to_string());
    compare("the key", was.key.clone(), is.key.clone());
    compare("the state", was.value.clone(), is.value.clone());
    compare(
        "what its files hold",
        format!("{:?}", was.rule),
        format!("{:?}", is.rule),
    );
    lines
}

/// What is not made of the same as it was: each difference, and the steps whose state it is in.
#[derive(Default)]
struct Inputs(BTreeMap<String, BTreeSet<String>>);

impl Inputs {
    /// Whether both are made of the same.
    fn compare(&mut self, was: &StepShape, is: &StepShape) -> bool {
        let mut differences = Vec::new();
        if is_early(was) {
            // Views counted themselves.
            let of = |shape: &StepShape| -> Vec<String> {
                let others = shape
                    .from
                    .iter()
                    .filter(|name| shape.rule != Rule::Versions || **name != shape.step);
                others.cloned().collect()
            };
            let (was, is) = (of(was), of(is));
            if was != is {
                differences.push(format!(
                    "made of {}, now of {} (the build that made the checkpoint noted only the first input of operators \
                     without a name)",
                    was.join(", "),
                    is.join(", ")
                ));
            }
        } else {
            if was.input != is.input {
                differences.push(format!("made of {}, now of {}", was.input, is.input));
            }
            for (step, now) in &is.definitions {
                if let Some(before) = was.definitions.get(step).filter(|before| *before != now) {
                    differences.push(format!("{step} was {before}, is {now}"));
                }
            }
        }
        let is_alike = differences.is_empty();
        for difference in differences {
            self.0.entry(difference).or_default().insert(is.name.clone());
        }
        is_alike
    }

    fn lines(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(difference, steps)| {
            let steps: Vec<String> = steps.into_iter().collect();
            format!("{}: {difference}", steps.join(" and "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Epoch, EventTime};

    fn shape(kind: &str, step: &str, from: &[&str], value: &str) -> StepShape {
        let rule = if kind == "view" {
            Rule::Versions
        } else {
            Rule::Last
        };
        let definitions = from
            .iter()
            .map(|name| ((*name).to_owned(), format!("made of {name}")));
        StepShape {
            name: format!("{kind} {step}"),
            step: step.to_owned(),
            from: from.iter().map(|name| (*name).to_owned()).collect(),
            input: from.last().copied().unwrap_or_default().to_owned(),
            definitions: definitions.collect(),
            version: 1,
            key: "u64".into(),
            value: value.into(),
            rule,
        }
    }

    fn held(shapes: &[StepShape]) -> Vec<StepFiles> {
        let files = |shape: &StepShape| StepFiles {
            shape: shape.clone(),
            cut: EventTime::MIN,
            floor: Epoch::ZERO,
            segments: Vec::new(),
        };
        shapes.iter().map(files).collect()
    }

    fn old() -> Vec<StepShape> {
        vec![
            shape("window", "spend", &["payments", "spend"], "i64"),
            shape("view", "spend_view", &["payments", "spend"], "i64"),
        ]
    }

    fn knows(source: &str) -> bool {
        source == "payments"
    }

    #[test]
    fn the_same_steps_in_whatever_order_go_on() {
        let turned: Vec<_> = old().into_iter().rev().collect();
        let fit = Fit::of(&held(&old()), &turned, knows);
        assert!(fit.is_clear());
        assert_eq!(fit.held, [Some(1), Some(0)]);
    }

    #[test]
    fn a_new_view_needs_nobodys_word_and_a_new_window_of_a_known_source_does() {
        let mut wanted = old();
        wanted.push(shape("view", "joined", &["payments", "spend"], "i64"));
        let fit = Fit::of(&held(&old()), &wanted, knows);
        assert!(fit.is_clear());
        assert_eq!(
            (fit.held, fit.views),
            (vec![Some(0), Some(1), None], vec!["view joined".into()])
        );
        wanted.push(shape(
            "window",
            "orders_a_day",
            &["orders", "orders_a_day"],
            "i64",
        ));
        assert!(
            Fit::of(&held(&old()), &wanted, knows).is_clear(),
            "of a source that is new, too"
        );
        wanted.push(shape(
            "window",
            "spend_a_day",
            &["payments", "spend_a_day"],
            "i64",
        ));
        let fit = Fit::of(&held(&old()), &wanted, knows);
        assert_eq!(fit.questions(), ["window spend_a_day is new"]);
    }

    #[test]
    fn what_changed_or_is_gone_is_said_and_views_of_it_begin_anew() {
        let mut wanted = old();
        wanted[0].version = 2;
        let fit = Fit::of(&held(&old()), &wanted, knows);
        assert_eq!(fit.questions(), ["window spend: the version was 1, is 2"]);
        assert_eq!(fit.held, [None, None], "the view's rows are the old window's");
        let mut wanted = old();
        wanted[0].value = "f64".into();
        wanted[1].input = "map(spend)".into();
        let fit = Fit::of(&held(&old()), &wanted, knows);
        assert_eq!(
            fit.questions(),
            [
                "window spend: the state was i64, is f64",
                "view spend_view: made of spend, now of map(spend)",
            ]
        );
        let fit = Fit::of(&held(&old()), &old()[..1], knows);
        assert_eq!(fit.questions(), ["view spend_view is gone"]);
        assert_eq!(fit.held, [Some(0)]);
    }

    #[test]
    fn what_is_made_of_something_else_is_said_once_and_may_be_kept_but_for_its_views() {
        let mut wanted = old();
        for shape in &mut wanted {
            *shape.definitions.get_mut("spend").unwrap() = "window(filter(payments))".into();
        }
        let question =
            "view spend_view and window spend: spend was made of spend, is window(filter(payments))";
        let fit = Fit::of(&held(&old()), &wanted, knows);
        assert_eq!(
            (fit.questions(), fit.held),
            (vec![question.to_owned()], vec![None, None])
        );
        let fit = Fit::keeping(&held(&old()), &wanted, knows);
        assert_eq!(
            (fit.questions(), fit.held),
            (vec![question.to_owned()], vec![Some(0), None])
        );
        wanted[0].version = 2;
        assert_eq!(
            Fit::keeping(&held(&old()), &wanted, knows).held,
            [None, None],
            "another version is never kept"
        );
    }

    fn events(input: &str, number: &str) -> StepShape {
        StepShape {
            name: format!("changes {input}{number}"),
            input: input.into(),
            rule: Rule::Sum,
            ..shape("changes", "payments", &["payments"], "i64")
        }
    }

    #[test]
    fn kept_events_are_told_apart_by_what_they_come_from_in_whatever_order() {
        let were = [
            events("payments", ""),
            events("filter(payments)", ""),
            events("payments", " #2"),
        ];
        let wanted = [
            events("filter(payments)", ""),
            events("payments", ""),
            events("payments", " #2"),
        ];
        let fit = Fit::of(&held(&were), &wanted, knows);
        assert_eq!(
            (fit.questions(), fit.held),
            (vec![], vec![Some(1), Some(0), Some(2)])
        );
        // One of which the input changed is told as such.
        let fit = Fit::keeping(
            &held(&were[..2]),
            &[events("map(payments)", ""), events("payments", "")],
            knows,
        );
        assert_eq!(
            (fit.questions(), fit.held),
            (
                vec!["changes map(payments): made of filter(payments), now of map(payments)".to_owned()],
                vec![Some(1), Some(0)]
            )
        );
    }

    /// As builds wrote it that noted only names, and numbered kept events as they were built.
    fn early(name: &str, shape: &StepShape) -> StepShape {
        let mut from = shape.from.clone();
        if shape.rule == Rule::Versions {
            from.push(shape.step.clone());
            from.sort();
        }
        StepShape {
            name: name.into(),
            from,
            input: String::new(),
            definitions: BTreeMap::new(),
            ..shape.clone()
        }
    }

    #[test]
    fn a_checkpoint_of_a_build_that_noted_only_names_goes_on_where_names_tell_all() {
        let wanted = [
            events("filter(payments)", ""),
            events("payments", ""),
            old().remove(0),
            old().remove(1),
        ];
        let names = [
            "changes payments",
            "changes payments #2",
            "window spend",
            "view spend_view",
        ];
        let were: Vec<_> = names
            .iter()
            .zip(&wanted)
            .map(|(name, shape)| early(name, shape))
            .collect();
        let fit = Fit::of(&held(&were), &wanted, knows);
        assert_eq!(
            (fit.questions(), fit.held),
            (vec![], vec![Some(0), Some(1), Some(2), Some(3)])
        );
        let mut joined = wanted.to_vec();
        joined[3].from.insert(0, "merchants".into());
        let fit = Fit::of(&held(&were), &joined, knows);
        assert_eq!(
            fit.questions(),
            [
                "view spend_view: made of payments, spend, now of merchants, payments, spend (the build that made the \
                 checkpoint noted only the first input of operators without a name)"
            ]
        );
        assert_eq!(fit.held[3], None);
    }
}
