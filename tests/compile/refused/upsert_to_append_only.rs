//! A table given to a store that can only append: rows of a table change and go.
use thalweg::prelude::*;
use thalweg::sink::{AppendSink, OpenedSink, Sink};
use thalweg::source::Environment;

struct Files;

impl Sink for Files {
    fn open(self, _env: &Environment) -> Result<OpenedSink, thalweg::Error> {
        Err(thalweg::Error::definition("no files"))
    }
}
impl AppendSink for Files {}

fn main() {}

fn wrong(flow: Dataflow) {
    let names = flow.table("names", Kafka::topic("n").json::<String>().keyed::<u32>());
    names.upsert_to("names_out", Files);
}
