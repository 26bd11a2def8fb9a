//! How the steps of a dataflow meet those that a checkpoint holds.
//!
//! | a step of the dataflow | begins |
//! |---|---|
//! | alike in name, types, version and in what it is made of | as the checkpoint has it |
//! | a view that is new | with its rows as of the checkpoint: restored steps give theirs once more |
//! | another that is new, of sources that are new, too | empty, which is what it would be |
//! | another that is new | empty, and so not as it would be: all state has to be made anew, or somebody has to accept that |
//! | changed | as one that is new, once somebody accepts that |
//!
//! A view of a step that begins empty would keep rows that nothing revises any more, so it begins as a new one, too.

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
        let mut fit = Self {
            held: Vec::with_capacity(wanted.len()),
            incomplete: Vec::new(),
            differences: Vec::new(),
            views: Vec::new(),
        };
        for step in wanted {
            let at = held.iter().position(|files| files.shape.name == step.name);
            let differences = at.map_or(Vec::new(), |at| changes(&held[at].shape, step));
            match at {
                None if step.rule == Rule::Versions => fit.views.push(step.name.clone()),
                None if step.from.iter().any(|name| knows(name)) => {
                    fit.incomplete.push(format!("{} is new", step.name));
                }
                _ => {}
            }
            fit.held.push(at.filter(|_| differences.is_empty()));
            fit.differences.extend(differences);
        }
        let gone = held.iter().map(|files| &files.shape.name);
        let gone = gone.filter(|name| wanted.iter().all(|step| step.name != **name));
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

/// In which ways a step is not what it was, a line each.
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
    compare("what it is made of", was.from.join(", "), is.from.join(", "));
    compare(
        "what its files hold",
        format!("{:?}", was.rule),
        format!("{:?}", is.rule),
    );
    lines
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
        let mut from: Vec<String> = from.iter().map(|name| (*name).to_owned()).collect();
        from.push(step.to_owned());
        StepShape {
            name: format!("{kind} {step}"),
            step: step.to_owned(),
            from,
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
            shape("window", "spend", &["payments"], "i64"),
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
        wanted.push(shape("window", "orders_a_day", &["orders"], "i64"));
        assert!(
            Fit::of(&held(&old()), &wanted, knows).is_clear(),
            "of a source that is new, too"
        );
        wanted.push(shape("window", "spend_a_day", &["payments"], "i64"));
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
        wanted[1].from.insert(0, "merchants".into());
        let fit = Fit::of(&held(&old()), &wanted, knows);
        assert_eq!(
            fit.questions(),
            [
                "window spend: the state was i64, is f64",
                "view spend_view: what it is made of was payments, spend, spend_view, is merchants, payments, spend, \
                 spend_view",
            ]
        );
        let fit = Fit::of(&held(&old()), &old()[..1], knows);
        assert_eq!(fit.questions(), ["view spend_view is gone"]);
        assert_eq!(fit.held, [Some(0)]);
    }
}
