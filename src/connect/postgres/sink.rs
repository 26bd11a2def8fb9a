//! Tables as sinks of streams, tables and collections.

use super::PostgresTable;
use super::examine::examine;
use super::session::ServerAddress;
use super::settings::PostgresSettings;
use super::table::{Layout, TableName};
use super::writer::PostgresWriter;
use crate::error::Result;
use crate::finding::Finding;
use crate::record::{Event, Record};
use crate::schema::RowSchema;
use crate::sink::{AppendSink, ChangelogSink, Method, OpenedSink, Shard, Sink, UpsertSink, Writers};
use crate::source::Environment;

impl Sink for PostgresTable {
    fn open(self, method: Method, env: &Environment) -> Result<OpenedSink> {
        let table = TableName::parse(&self.name)?;
        let settings = env
            .connectors
            .get::<PostgresSettings>()
            .cloned()
            .unwrap_or_default();
        let application = format!("{}.{}", env.group, env.dataflow);
        let description = format!("table `{table}` of Postgres");
        let (name, opened, client) = (table.clone(), settings.clone(), application.clone());
        let writers = Writers::transactional(move |shard: &Shard| {
            let layout = Layout::of(name.clone(), method, &shard.schema)?;
            let server = ServerAddress::new(&opened, &client)?;
            PostgresWriter::new(server, shard.clone(), layout, &client)
        });
        let look = move |schema: &RowSchema| -> Result<Vec<Finding>> {
            let layout = Layout::of(table.clone(), method, schema)?;
            Ok(examine(&*ServerAddress::new(&settings, &application)?, &layout))
        };
        Ok(OpenedSink::new(description, writers)
            .shards(self.shards)
            .examine(move |schema| {
                look(schema).unwrap_or_else(|error| vec![Finding::error(error.to_string())])
            }))
    }
}

/// Each event is a row.
impl<T: Event> AppendSink<T> for PostgresTable {}
/// The key's fields are the primary key.
impl<K: Record, V: Record> UpsertSink<K, V> for PostgresTable {}
/// Each change is a row: the key, the epoch, the difference, and each field before and after.
impl<V: Record> ChangelogSink<V> for PostgresTable {}
