//! The builders' way to say where dead letters go.

/// The setting of dead letters that every source's builder has, for a type with a field `dead_letters`.
macro_rules! dead_letters_to {
    () => {
        /// Writes the dead letters of this source to a Kafka topic, besides showing them in the view
        /// `<source>.dead_letters`: records that can't be decoded, and events that steps behind the source
        /// turn down. Each is there exactly once, with key, payload and headers as they were, and with
        /// headers that say why. The settings `dead_letters.topic` and `sources.NAME.dead_letters` do the
        /// same without a change of code; `docs/dead-letters.md` has the headers, and how to replay.
        ///
        /// ```
        /// use thalweg::prelude::*;
        ///
        /// #[derive(Clone, Serialize, Deserialize)]
        /// struct Payment { merchant: u32, cents: i64 }
        ///
        /// fn build(flow: Dataflow) {
        ///     let payments = Kafka::topic("payments.transactions.v1").json::<Payment>();
        ///     let _payments = flow.source("payments", payments.dead_letters_to("payments.dead-letters.v1"));
        /// }
        /// # thalweg::runtime::plan(&dataflow("payments", build), &Default::default()).unwrap();
        /// ```
        pub fn dead_letters_to(mut self, topic: &str) -> Self {
            self.dead_letters = Some(topic.into());
            self
        }
    };
}

pub(crate) use dead_letters_to;
