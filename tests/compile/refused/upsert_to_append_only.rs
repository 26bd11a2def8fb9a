//! A table given to a store that can only append: rows of a table change and go.
use thalweg::prelude::*;
use thalweg::sink::{AppendSink, Method, OpenedSink, Sink};
use thalweg::source::Environment;

struct Files;

impl Sink for Files {
    fn open(self, _: Method, _: &Environment) -> Result<OpenedSink, thalweg::Error> {
        Err(thalweg::Error::definition("no files"))
    }
}
impl<T> AppendSink<T> for Files {}

fn main() {}

fn wrong(flow: Dataflow) {
    let names = flow.table("names", Kafka::topic("n").json::<String>().keyed::<u32>());
    names.upsert_to("names_out", Files);
}
