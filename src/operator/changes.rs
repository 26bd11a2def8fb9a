//! Events as the rows of a collection, which only grows.

use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::keeper::{Keeper, Loader};
use crate::checkpoint::state::{Out, Stateful};
use crate::operator::again::Again;
use crate::operator::walk::Update;
use crate::record::{Record, Timed};
use crate::time::Epoch;

/// Each event as a row, once.
pub fn changes<'s, T: Record>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    keeper: &Keeper,
) -> StreamVec<'s, Epoch, Update<T>> {
    type Builder<T> = CapacityContainerBuilder<Vec<Update<T>>>;
    let scope = events.scope();
    events.unary_frontier::<Builder<T>, _, _, _>(Pipeline, "changes", |capability, info| {
        let restored = keeper.restored();
        let activator = scope.activator_for(info.address);
        let mut again = Again::new(restored, capability, activator, Rc::new(true.into()));
        let saves = keeper.saves();
        let kept = keeper.keep_loaded(
            Rows::default(),
            move |loader| load(loader, restored.unwrap_or_default()),
            |rows, loaded| rows.loaded = loaded,
        );
        move |(input, _frontier), output| {
            again.emit(
                || std::mem::take(&mut kept.at(Epoch::ZERO).loaded),
                |capability, rows| output.session(capability).give_container(rows),
            );
            input.for_each(|capability, data| {
                let epoch = *capability
                    .least()
                    .expect("events travel under their epoch's capability");
                if saves {
                    // Those of another source may be further: what belongs to a checkpoint is told apart when it is made.
                    let mut rows = kept.at(Epoch::ZERO);
                    rows.new
                        .extend(data.iter().map(|event| (epoch, event.value.clone())));
                }
                let mut session = output.session(&capability);
                session.give_iterator(data.drain(..).map(|event| (event.value, epoch, 1)));
            });
        }
    })
}

/// All rows, as of the epoch that they are loaded as of.
fn load<T: Record>(loader: &Loader, restored: Epoch) -> Vec<Update<T>> {
    let mut loaded = Vec::new();
    loader.load(
        |row: &T| row,
        |entry| {
            let times: i64 = entry.value.unwrap_or_default();
            loaded.push((entry.key, restored, times as isize));
        },
    );
    loaded
}

/// The rows that no checkpoint holds.
struct Rows<T> {
    /// Those that one holds, until they are given again.
    loaded: Vec<Update<T>>,
    new: Vec<(Epoch, T)>,
    /// Kept until the next freeze: they may have to be saved again.
    frozen: Vec<(Epoch, T)>,
    at: usize,
    out: Option<Out>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            loaded: Vec::new(),
            new: Vec::new(),
            frozen: Vec::new(),
            at: 0,
            out: None,
        }
    }
}

impl<T: Record> Stateful for Rows<T> {
    fn freeze(&mut self, at: Epoch, again: bool, out: Out) {
        if !again {
            out.discard(std::mem::take(&mut self.frozen));
        }
        let (now, later) = self.new.drain(..).partition(|(epoch, _)| *epoch <= at);
        self.new = later;
        self.frozen.extend::<Vec<_>>(now);
        (self.at, self.out) = (0, Some(out));
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let Some(out) = &mut self.out else {
            return false;
        };
        let end = self.frozen.len().min(self.at + entries_max);
        for (epoch, row) in &self.frozen[self.at..end] {
            out.put(row, *epoch, None, &1i64);
        }
        self.at = end;
        let more = end < self.frozen.len();
        if !more {
            self.out = None;
        }
        more
    }
}
