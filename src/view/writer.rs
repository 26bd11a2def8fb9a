//! The typed writer of a shard: the only part that is compiled for each type of a view.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::checkpoint::state_handle::StateHandle;
use crate::checkpoint::steps::StateCell;
use crate::error::{Error, Result};
use crate::record::{Change, Record, route};
use crate::schema::encode::Mismatch;
use crate::time::Epoch;
use crate::view::View;
use crate::view::batch::ChangeBatch;
use crate::view::shard::{RouteOf, Shard, ShardWriter};

/// Writes a view's rows on one worker: encodes them, and passes them to the shard.
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

    /// Applies changes of one epoch as they arrive, and empties `changes`. They are invisible until the epoch
    /// closes.
    ///
    /// An epoch may be applied in several calls; the last change of a key counts. Epochs never decrease, and
    /// none is applied after it was closed.
    ///
    /// # Errors
    /// If a row's `Serialize` writes something other than its `Deserialize` reads.
    ///
    /// # Panics
    /// If the epoch is before that of an earlier call: rows would be wrong from there on.
    pub fn apply(&mut self, epoch: Epoch, changes: &mut Vec<Change<K, V>>) -> Result<()> {
        let mut changes = changes.drain(..);
        while self.encoder.encode(&mut changes, &mut self.batch)? {
            self.shard.apply(epoch, &mut self.batch);
        }
        Ok(())
    }

    /// Prunes up to `keys_max` rows; applying changes also prunes in passing.
    pub fn prune(&mut self, keys_max: usize) {
        self.shard.prune(keys_max);
    }

    /// The encoder, and the shard, registered for checkpoints and loaded from one.
    pub(crate) fn keep(self, handle: &StateHandle) -> (RowEncoder<K, V>, StateCell<ShardWriter>) {
        let route_of: RouteOf = |schema, key| schema.decode_key::<K>(key).map(|key| route(&key));
        (self.encoder, self.shard.keep(handle, route_of))
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

    /// Encodes a slice of the changes, replacing the contents of the batch. Returns whether there were any.
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
