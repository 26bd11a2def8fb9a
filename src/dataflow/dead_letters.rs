//! What becomes of dead letters: a view of each source's newest, and a topic, where one is named.
//!
//! ```text
//!   source ── letters ──┐                       ┌─▶ the newest, for so long ─▶ view `<source>.dead_letters`
//!   windows, try_map ───┴─ by source, at the end┤
//!                                               └─▶ rows, exactly once ─▶ sink `<source>.dead_letters` (Kafka topic)
//! ```

use std::time::Duration;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::vec::Filter;

use crate::checkpoint::identity::{StateIdentity, StateKind};
use crate::checkpoint::manifest::EntryRule;
use crate::connect::kafka::dead_letters::LetterTopic;
use crate::dataflow::Dataflow;
use crate::dataflow::plan::Origin;
use crate::operator::backfill::BackfillDemand;
use crate::operator::dead_letters::{DeadLetterKey, DeadLetterRow, dead_letters};
use crate::position::SourceId;
use crate::record::Timed;
use crate::schema::RowSchema;
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;
use crate::sink::Method;
use crate::sink::dead_letters::{LetterRow, LetterSource};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime};
use crate::view::ViewSpec;

/// How long dead letters stay in their view.
const LETTERS_KEEP: Duration = Duration::from_secs(24 * 3600);

type Stream<'s> = StreamVec<'s, Epoch, DeadLetter>;

/// The dead letters of a dataflow that is being built.
#[derive(Default)]
pub(super) struct Letters<'s> {
    /// Those of sources themselves.
    pub dead: Vec<DeadOf<'s>>,
    /// Those of steps behind them, of any source.
    pub late: Vec<Stream<'s>>,
}

/// What a source could not decode.
pub(super) struct DeadOf<'s> {
    pub id: SourceId,
    pub origin: Origin,
    /// Name of the log that it reads.
    pub topic: String,
    pub connector: Option<&'static str>,
    /// The topic that its letters go to.
    pub to: Option<String>,
    pub letters: Stream<'s>,
}

impl<'s> Dataflow<'s> {
    /// Dead letters of every source become views, once all steps that may add to them are known. Which steps
    /// those are says nothing about the letters that were there before, so they come from the source alone.
    pub(super) fn finish(self) {
        let Letters { dead, late } = self.build_state.late.take();
        let late = self.scope.concatenate(late);
        for of in dead {
            let source = of.id;
            let own = late
                .clone()
                .filter(move |letter: &DeadLetter| letter.at.partition.source == source);
            let all = self.scope.concatenate([of.letters.clone(), own]);
            self.send_letters(&of, &all);
            self.show_letters(of, all);
        }
        self.context().plan.borrow_mut().finish();
    }

    /// A view of a source's newest letters.
    fn show_letters(self, of: DeadOf<'s>, all: Stream<'s>) {
        let name = of.origin.step().clone();
        let view = format!("{name}.dead_letters");
        let context = self.context();
        let version = context.version(&name);
        let named = (StateIdentity::new(StateKind::Letters, &name), &*view);
        let handle =
            context.handle::<DeadLetterKey, DeadLetterRow>(named, &of.origin, version, EntryRule::Last);
        let label = format!("dead letters of `{name}`");
        // Nothing but their view is made of them.
        let demand = BackfillDemand::default();
        let setup = context.setup(&view, label, &[], handle, demand);
        let keyed = dead_letters(all, of.topic, LETTERS_KEEP, setup);
        let letters = Origin::named(&view.as_str().into());
        let mut spec = ViewSpec::new(view);
        spec.description = format!("records of `{name}` that could not be counted, and why");
        spec.keep = Some(LETTERS_KEEP);
        self.serve(keyed, &letters, spec, (None, 1));
    }

    /// A sink of all of a source's letters, where a topic is named for them.
    fn send_letters(self, of: &DeadOf<'s>, all: &Stream<'s>) {
        let Some(topic) = &of.to else { return };
        let source = of.origin.step();
        let name = format!("{source}.dead_letters");
        let owner = format!("sink `{name}`");
        let schema = RowSchema::new(&owner, trace::<()>(), trace::<LetterRow>(), FieldNames::default());
        let sink = LetterTopic::new(topic);
        let Some(sink_input) = self.open_sink(&name, &of.origin, Method::AppendTo, sink, schema) else {
            return;
        };
        let rows = LetterSource {
            source: source.to_string(),
            connector: of.connector.map(str::to_owned),
            topic: of.topic.clone(),
        };
        let mut encoder = sink_input.encoder(false);
        self.give(all.clone(), sink_input, move |letter: &DeadLetter| {
            let event = Timed {
                value: rows.row(letter),
                time: letter.timestamp,
                horizon: EventTime::MIN,
                at: letter.at,
            };
            // Those of one record may come from several workers.
            encoder.event(&event, false)
        });
    }
}
