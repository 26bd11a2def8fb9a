//! From typed changes to a shard: what is compiled for each type of a view, and no more.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::checkpoint::keeper::Keeper;
use crate::checkpoint::steps::Kept;
use crate::error::{Error, Result};
use crate::record::{Change, Record, route};
use crate::schema::encode::Mismatch;
use crate::time::Epoch;
use crate::view::View;
use crate::view::batch::ChangeBatch;
use crate::view::shard::{RouteOf, Shard, ShardWriter};

/// Writes a view's rows on one worker: encodes them, and hands them to the shard.
pub struct ViewWriter<K, V> {
    encoder: RowEncoder<K, V>,
    shard: ShardWriter,
    /// Empty between calls.
    batch: ChangeBatch,
}

impl<K: Record, V: Record> ViewWriter<K, V> {
    pub(crate) fn new(view: Arc<View>, shard: Arc<Shard>) -> Self {
        Self {
            encoder: RowEncoder::new(view.clone()),
            shard: ShardWriter::new(view, shard),
            batch: ChangeBatch::default(),
        }
    }

    /// Applies changes of one epoch as they arrive, and empties `changes`. Invisible until the epoch closes.
    ///
    /// An epoch may come in several calls; of a key, the last change counts. Epochs never go back, and none
    /// comes after it has been closed.
    ///
    /// # Errors
    /// When a row's `Serialize` writes something else than its `Deserialize` reads.
    ///
    /// # Panics
    /// When the epoch is before that of an earlier call: the rows would be wrong from there on.
    pub fn apply(&mut self, epoch: Epoch, changes: &mut Vec<Change<K, V>>) -> Result<()> {
        let mut changes = changes.drain(..);
        while self.encoder.encode(&mut changes, &mut self.batch)? {
            self.shard.apply(epoch, &mut self.batch);
        }
        Ok(())
    }

    /// Gives up to `keys_max` rows back what they no longer need; applying does it in passing.
    pub fn prune(&mut self, keys_max: usize) {
        self.shard.prune(keys_max);
    }

    /// The encoder, and the shard, kept with what a checkpoint holds of it.
    pub(crate) fn keep(self, keeper: &Keeper) -> (RowEncoder<K, V>, Kept<ShardWriter>) {
        let route_of: RouteOf = |schema, key| schema.decode_key::<K>(key).map(|key| route(&key));
        (self.encoder, self.shard.keep(keeper, route_of))
    }
}

/// Encodes changes of typed rows.
pub(crate) struct RowEncoder<K, V> {
    view: Arc<View>,
    types: PhantomData<fn(K, V)>,
}

impl<K: Record, V: Record> RowEncoder<K, V> {
    fn new(view: Arc<View>) -> Self {
        Self {
            view,
            types: PhantomData,
        }
    }

    /// Encodes some of the changes, in place of what was in the batch. Returns whether there were any.
    pub(crate) fn encode(
        &self,
        changes: &mut std::vec::Drain<'_, Change<K, V>>,
        batch: &mut ChangeBatch,
    ) -> Result<bool> {
        let schema = self.view.row_schema();
        batch.clear();
        while !batch.is_full()
            && let Some(Change { key, new, .. }) = changes.next()
        {
            let bytes = batch.bytes();
            let key_at = bytes.len();
            let encoded = schema.encode_key(&key, bytes);
            encoded.map_err(|why| self.view.unfit("key", &why))?;
            let value_at = bytes.len();
            if let Some(value) = &new {
                let encoded = schema.encode_value(value, bytes);
                encoded.map_err(|why| self.view.unfit("value", &why))?;
            }
            batch.push(schema, key_at, value_at, new.is_some());
        }
        Ok(batch.len() > 0)
    }
}

impl View {
    #[cold]
    fn unfit(&self, part: &str, why: &Mismatch) -> Error {
        Error::definition(format!("view `{}` cannot encode a row", self.spec.name))
            .detail(format!("its {part} does not read back what it writes: {why}"))
            .hint(
                "make the type's Serialize and Deserialize agree; a field with `skip_serializing_if` \
                needs `default`, too",
            )
    }
}
