//! An upload in progress: parts are sent while more is written; the object becomes visible only when it is
//! finished.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{Error, MultipartUpload, ObjectStoreExt};

use super::scratch::Scratch;
use super::{ObjectClient, ObjectInfo, Reply, put_new};
use crate::disk::{FileReader, FileWriter};

pub(super) struct Upload {
    shared: Arc<ObjectClient>,
    path: PathBuf,
    key: Key,
    scratch: Arc<Scratch>,
    len: u64,
    /// The end of the data already split into parts.
    sent: u64,
    begun: Option<Box<dyn MultipartUpload>>,
    parts: VecDeque<Reply<()>>,
}

impl Upload {
    pub(super) fn new(shared: Arc<ObjectClient>, path: &Path, key: Key) -> io::Result<Self> {
        let scratch = Arc::new(Scratch::new(&shared.scratch)?);
        Ok(Self {
            shared,
            path: path.to_owned(),
            key,
            scratch,
            len: 0,
            sent: 0,
            begun: None,
            parts: VecDeque::new(),
        })
    }

    /// Sends the next part; waits while all uploads together have too many in flight.
    fn send(&mut self) -> io::Result<()> {
        let (key, store) = (self.key.clone(), self.shared.store.clone());
        if self.begun.is_none() {
            // Only small objects are put on a condition; of a large one this tells what a disk would.
            let begin = async move {
                match store.head(&key).await {
                    Ok(_) => Ok(None),
                    Err(Error::NotFound { .. }) => store.put_multipart(&key).await.map(Some),
                    Err(error) => Err(error),
                }
            };
            self.begun = self.shared.wait(begin)?;
        }
        let upload = self.begun.as_mut().ok_or(io::ErrorKind::AlreadyExists)?;
        let mut part = vec![0; self.shared.part.min((self.len - self.sent) as usize)];
        self.scratch.read_at(self.sent, &mut part)?;
        self.sent += part.len() as u64;
        let slots = self.shared.parts.clone();
        let slot = self.shared.begin(async move {
            // It is never closed.
            Ok(slots.acquire_owned().await.ok())
        });
        let slot = self.shared.told(slot)?;
        let sent = upload.put_part(part.into());
        self.parts.push_back(self.shared.ask(async move {
            let sent = sent.await;
            drop(slot);
            sent
        }));
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        while self.sent < self.len {
            self.send()?;
        }
        for part in std::mem::take(&mut self.parts) {
            self.shared.told(part)?;
        }
        let Some(mut upload) = self.begun.take() else {
            return Ok(());
        };
        let completed = self.shared.ask(async move {
            let completed = upload.complete().await;
            Ok((upload, completed))
        });
        let (upload, completed) = self.shared.told(completed)?;
        completed.map(drop).map_err(|error| {
            self.begun = Some(upload);
            super::diagnosis::tell(&error, &self.shared.root)
        })
    }
}

impl FileWriter for Upload {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.scratch.write_at(self.len, bytes)?;
        self.len += bytes.len() as u64;
        // One part alone is put as it is, so there have to be more.
        while self.len - self.sent > self.shared.part as u64 {
            self.send()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if self.begun.is_some() {
            self.complete()?;
        } else {
            let mut bytes = vec![0; self.len as usize];
            self.scratch.read_at(0, &mut bytes)?;
            let put = put_new(self.shared.store.clone(), self.key.clone(), Bytes::from(bytes));
            if !self.shared.wait(put)? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
        }
        self.shared
            .keep(&self.path, ObjectInfo::Whole(self.scratch.clone()));
        Ok(())
    }
}

impl Drop for Upload {
    /// An unfinished upload is aborted, and its parts are removed.
    fn drop(&mut self) {
        if let Some(mut upload) = self.begun.take() {
            let _nobody_waits = self.shared.ask(async move { upload.abort().await });
        }
    }
}
