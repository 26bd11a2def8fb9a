//! Compatibility between the steps of a dataflow and those in a checkpoint.
//!
//! | a step of the dataflow | starts |
//! |---|---|
//! | same name, types, version and inputs, all the way up | with its state from the checkpoint |
//! | a new view | with its rows as of the checkpoint, which restored steps re-emit |
//! | another new step, of sources that are new as well | empty, which is correct |
//! | another new step | empty, and so incomplete: all state must be rebuilt, or the user must accept it |
//! | changed | like a new step, once the user accepts it |
//! | other inputs, but the same types | like a changed step; or, if the user says so, with its state from the checkpoint, and its views like new ones |
//!
//! A view of a step that starts empty would keep rows that nothing retracts any more, so it starts like a new
//! one, too.
//!
//! The inputs of a step are all operators before it, with all of their inputs: one more `filter` or
//! `semijoin` produces other rows. Closures cannot be compared; steps declare versions for them. The
//! comparison uses [structures](super::identity), never text for people.

use std::collections::{BTreeMap, BTreeSet};

use super::identity::quoted;
use super::manifest::{EntryRule, StepFiles, StepSignature};

/// The outcome for each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compatibility {
    /// For every step of the dataflow, in order, the step of the checkpoint whose state it resumes.
    pub held: Vec<Option<usize>>,
    /// New steps that would need history from before the checkpoint, one line each.
    pub incomplete: Vec<String>,
    /// Steps that changed or were removed, one line per difference.
    pub differences: Vec<String>,
    /// New views.
    pub views: Vec<String>,
}

impl Compatibility {
    /// Compares the steps. `knows` tells whether the ledger contains a source.
    pub(crate) fn of(held: &[StepFiles], wanted: &[StepSignature], knows: impl Fn(&str) -> bool) -> Self {
        Self::new(held, wanted, false, knows)
    }

    /// Like [`Compatibility::of`], if the user has declared that the new inputs produce the same state.
    pub(crate) fn keeping(
        held: &[StepFiles],
        wanted: &[StepSignature],
        knows: impl Fn(&str) -> bool,
    ) -> Self {
        Self::new(held, wanted, true, knows)
    }

    fn new(held: &[StepFiles], wanted: &[StepSignature], keeps: bool, knows: impl Fn(&str) -> bool) -> Self {
        let mut compatibility = Self {
            held: Vec::with_capacity(wanted.len()),
            incomplete: Vec::new(),
            differences: Vec::new(),
            views: Vec::new(),
        };
        let mut inputs = InputChanges::default();
        let matching_steps = matching_steps(held, wanted);
        for (step, at) in wanted.iter().zip(&matching_steps) {
            let Some(at) = *at else {
                match step.rule {
                    EntryRule::Versions => compatibility.views.push(step.identity.to_string()),
                    _ if step.from.iter().any(|name| knows(name)) => {
                        compatibility.incomplete.push(format!("{} is new", step.identity));
                    }
                    _ => {}
                }
                compatibility.held.push(None);
                continue;
            };
            let was = &held[at].shape;
            let changes = changes(was, step);
            let is_made_alike = inputs.compare(was, step) || (keeps && step.rule != EntryRule::Versions);
            compatibility
                .held
                .push(Some(at).filter(|_| changes.is_empty() && is_made_alike));
            compatibility.differences.extend(changes);
        }
        compatibility.differences.extend(inputs.lines());
        let is_gone = |at: &usize| !matching_steps.contains(&Some(*at));
        let gone = (0..held.len()).filter(is_gone).map(|at| &held[at].shape.identity);
        compatibility
            .differences
            .extend(gone.map(|name| format!("{name} is gone")));
        compatibility.reset_dependent_views(wanted);
        compatibility
    }

    /// Resets the views of steps that start empty.
    fn reset_dependent_views(&mut self, wanted: &[StepSignature]) {
        let empty: Vec<&str> = wanted
            .iter()
            .zip(&self.held)
            .filter(|(step, held)| held.is_none() && step.rule != EntryRule::Versions)
            .map(|(step, _)| step.step.as_str())
            .collect();
        for (step, held) in wanted.iter().zip(&mut self.held) {
            if step.rule == EntryRule::Versions && step.from.iter().any(|name| empty.contains(&name.as_str()))
            {
                *held = None;
            }
        }
    }

    /// Whether the service may start without a decision by the user.
    pub(crate) fn needs_no_decision(&self) -> bool {
        self.incomplete.is_empty() && self.differences.is_empty()
    }

    /// What the user must decide about.
    pub(crate) fn decisions(&self) -> Vec<String> {
        self.differences.iter().chain(&self.incomplete).cloned().collect()
    }
}

/// For every step of the dataflow, the matching step of the checkpoint, if any.
fn matching_steps(held: &[StepFiles], wanted: &[StepSignature]) -> Vec<Option<usize>> {
    let alike = |at: usize| {
        held.iter()
            .position(|files| files.shape.identity == wanted[at].identity)
    };
    let mut found: Vec<_> = (0..wanted.len()).map(alike).collect();
    // The identity of kept events is derived from their inputs. If only that differs, the step has changed
    // and is not new.
    let missing = found.clone();
    for at in 0..wanted.len() {
        let is = |shape: &StepSignature| shape.rule == EntryRule::Sum && shape.step == wanted[at].step;
        let new = only_element((0..wanted.len()).filter(|n| missing[*n].is_none() && is(&wanted[*n])));
        if new == Some(at) {
            let is_free = |n: &usize| !missing.contains(&Some(*n)) && is(&held[*n].shape);
            found[at] = only_element((0..held.len()).filter(is_free));
        }
    }
    found
}

/// The only element, if there is exactly one.
fn only_element(mut all: impl Iterator<Item = usize>) -> Option<usize> {
    all.next().filter(|_| all.next().is_none())
}

/// The differences between the state of a step in a checkpoint and now, one line each.
fn changes(was: &StepSignature, is: &StepSignature) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, was: String, is_now: String| {
        if was != is_now {
            lines.push(format!("{}: {what} was {was}, is {is_now}", is.identity));
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

/// Differences in inputs, each with the steps that it affects.
#[derive(Default)]
struct InputChanges(BTreeMap<String, BTreeSet<String>>);

impl InputChanges {
    /// Whether both have the same inputs.
    fn compare(&mut self, was: &StepSignature, is: &StepSignature) -> bool {
        let mut differences = Vec::new();
        if was.input != is.input {
            differences.push(format!("its input was {}, is {}", was.input, is.input));
        }
        for (step, now) in &is.definitions {
            if let Some(before) = was.definitions.get(step).filter(|before| *before != now) {
                differences.push(format!("{} was {before}, is {now}", quoted(step)));
            }
        }
        let is_alike = differences.is_empty();
        for difference in differences {
            self.0
                .entry(difference)
                .or_default()
                .insert(is.identity.to_string());
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
    use super::super::identity::{Definition, Expression, StateIdentity, StateKind};
    use super::*;
    use crate::time::{Epoch, EventTime};

    fn rows(name: &str) -> Expression {
        Expression::Step(name.to_owned())
    }

    fn window(input: &str) -> Definition {
        let rows = match input.strip_prefix("filter ") {
            Some(input) => Expression::of("filter", vec![rows(input)]),
            None => rows(input),
        };
        Definition {
            made: Expression::of("window", vec![rows]),
            version: 1,
        }
    }

    fn shape(kind: StateKind, step: &str, from: &[&str], value: &str) -> StepSignature {
        let rule = match kind {
            StateKind::View => EntryRule::Versions,
            _ => EntryRule::Last,
        };
        let definitions = from.iter().map(|name| ((*name).to_owned(), window(name)));
        StepSignature {
            identity: StateIdentity::new(kind, step),
            step: step.to_owned(),
            from: from.iter().map(|name| (*name).to_owned()).collect(),
            input: rows(from.last().copied().unwrap_or_default()),
            definitions: definitions.collect(),
            version: 1,
            key: "u64".into(),
            value: value.into(),
            rule,
        }
    }

    fn held(shapes: &[StepSignature]) -> Vec<StepFiles> {
        let files = |shape: &StepSignature| StepFiles {
            shape: shape.clone(),
            cut: EventTime::MIN,
            floor: Epoch::ZERO,
            segments: Vec::new(),
        };
        shapes.iter().map(files).collect()
    }

    fn old() -> Vec<StepSignature> {
        vec![
            shape(StateKind::Table, "spend", &["payments", "spend"], "i64"),
            shape(StateKind::View, "spend_view", &["payments", "spend"], "i64"),
        ]
    }

    fn knows(source: &str) -> bool {
        source == "payments"
    }

    #[test]
    fn the_same_steps_in_whatever_order_go_on() {
        let turned: Vec<_> = old().into_iter().rev().collect();
        let compatibility = Compatibility::of(&held(&old()), &turned, knows);
        assert!(compatibility.needs_no_decision());
        assert_eq!(compatibility.held, [Some(1), Some(0)]);
    }

    #[test]
    fn a_new_view_needs_nobodys_word_and_a_new_window_of_a_known_source_does() {
        let mut wanted = old();
        wanted.push(shape(StateKind::View, "joined", &["payments", "spend"], "i64"));
        let compatibility = Compatibility::of(&held(&old()), &wanted, knows);
        assert!(compatibility.needs_no_decision());
        assert_eq!(
            (compatibility.held, compatibility.views),
            (vec![Some(0), Some(1), None], vec!["view joined".into()])
        );
        wanted.push(shape(
            StateKind::Table,
            "orders_a_day",
            &["orders", "orders_a_day"],
            "i64",
        ));
        assert!(
            Compatibility::of(&held(&old()), &wanted, knows).needs_no_decision(),
            "of a source that is new, too"
        );
        wanted.push(shape(
            StateKind::Table,
            "spend_a_day",
            &["payments", "spend_a_day"],
            "i64",
        ));
        let compatibility = Compatibility::of(&held(&old()), &wanted, knows);
        assert_eq!(compatibility.decisions(), ["table spend_a_day is new"]);
    }

    #[test]
    fn what_changed_or_is_gone_is_said_and_views_of_it_begin_anew() {
        let mut wanted = old();
        wanted[0].version = 2;
        let compatibility = Compatibility::of(&held(&old()), &wanted, knows);
        assert_eq!(
            compatibility.decisions(),
            ["table spend: the version was 1, is 2"]
        );
        assert_eq!(
            compatibility.held,
            [None, None],
            "the view's rows are the old window's"
        );
        let mut wanted = old();
        wanted[0].value = "f64".into();
        wanted[1].input = Expression::of("map", vec![rows("spend")]);
        let compatibility = Compatibility::of(&held(&old()), &wanted, knows);
        assert_eq!(
            compatibility.decisions(),
            [
                "table spend: the state was i64, is f64",
                "view spend_view: its input was spend, is map(spend)",
            ]
        );
        let compatibility = Compatibility::of(&held(&old()), &old()[..1], knows);
        assert_eq!(compatibility.decisions(), ["view spend_view is gone"]);
        assert_eq!(compatibility.held, [Some(0)]);
    }

    #[test]
    fn what_is_made_of_something_else_is_said_once_and_may_be_kept_but_for_its_views() {
        let mut wanted = old();
        for shape in &mut wanted {
            *shape.definitions.get_mut("spend").unwrap() = window("filter payments");
        }
        let question =
            "table spend and view spend_view: spend was window(spend), is window(filter(payments))";
        let compatibility = Compatibility::of(&held(&old()), &wanted, knows);
        assert_eq!(
            (compatibility.decisions(), compatibility.held),
            (vec![question.to_owned()], vec![None, None])
        );
        let compatibility = Compatibility::keeping(&held(&old()), &wanted, knows);
        assert_eq!(
            (compatibility.decisions(), compatibility.held),
            (vec![question.to_owned()], vec![Some(0), None])
        );
        wanted[0].version = 2;
        assert_eq!(
            Compatibility::keeping(&held(&old()), &wanted, knows).held,
            [None, None],
            "another version is never kept"
        );
    }

    fn events(operator: Option<&str>, number: u64) -> StepSignature {
        let payments = rows("payments");
        let input = match operator {
            Some(operator) => Expression::of(operator, vec![payments]),
            None => payments,
        };
        StepSignature {
            identity: StateIdentity::changes(&input, number),
            input,
            rule: EntryRule::Sum,
            ..shape(StateKind::Changes, "payments", &["payments"], "i64")
        }
    }

    #[test]
    fn kept_events_are_told_apart_by_what_they_come_from_in_whatever_order() {
        let were = [events(None, 1), events(Some("filter"), 1), events(None, 2)];
        let wanted = [events(Some("filter"), 1), events(None, 1), events(None, 2)];
        let compatibility = Compatibility::of(&held(&were), &wanted, knows);
        assert_eq!(
            (compatibility.decisions(), compatibility.held),
            (vec![], vec![Some(1), Some(0), Some(2)])
        );
        // A changed input is reported as such.
        let compatibility = Compatibility::keeping(
            &held(&were[..2]),
            &[events(Some("map"), 1), events(None, 1)],
            knows,
        );
        assert_eq!(
            (compatibility.decisions(), compatibility.held),
            (
                vec!["changes map(payments): its input was filter(payments), is map(payments)".to_owned()],
                vec![Some(1), Some(0)]
            )
        );
    }
}
