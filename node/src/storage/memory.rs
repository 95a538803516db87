//! The in-memory twin of the file: same rules, no disk.

use std::collections::BTreeMap;

use mneme_replica::effect::Meta;
use mneme_replica::id::NodeId;

use super::{FileSize, Identity, Storage, StorageError, StoredFrame};

/// Frames in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    identity: Identity,
    frames: BTreeMap<u64, Vec<u8>>,
    /// Bytes of frames it takes, at most; a full volume beyond.
    pub capacity_bytes: Option<usize>,
}

impl MemoryStorage {
    fn bytes(&self) -> usize {
        self.frames.values().map(Vec::len).sum()
    }
}

impl Storage for MemoryStorage {
    async fn identity(&mut self) -> Result<Identity, StorageError> {
        Ok(self.identity.clone())
    }

    async fn put_node(&mut self, node: NodeId) -> Result<(), StorageError> {
        self.identity.node = Some(node);
        Ok(())
    }

    async fn put_meta(&mut self, meta: &Meta) -> Result<(), StorageError> {
        self.identity.meta = meta.clone();
        Ok(())
    }

    async fn frames(&mut self, after: u64, bytes: usize) -> Result<Vec<StoredFrame>, StorageError> {
        let mut taken = 0;
        let frames = self.frames.range(after + 1..).take_while(|(_, body)| {
            let has_room = taken < bytes;
            taken += body.len();
            has_room
        });
        Ok(frames.map(|(id, body)| StoredFrame { id: *id, body: body.clone() }).collect())
    }

    async fn frame_sizes(&mut self, after: u64, bytes: usize) -> Result<Vec<(u64, usize)>, StorageError> {
        let frames = self.frames(after, bytes).await?;
        Ok(frames.iter().map(|frame| (frame.id, frame.body.len())).collect())
    }

    async fn append(
        &mut self,
        frames: impl IntoIterator<Item = StoredFrame, IntoIter: Send> + Send,
        first: Option<u64>,
    ) -> Result<(), StorageError> {
        let frames: Vec<StoredFrame> = frames.into_iter().collect();
        let added: usize = frames.iter().map(|frame| frame.body.len()).sum();
        if self.capacity_bytes.is_some_and(|capacity| self.bytes() + added > capacity) {
            return Err(StorageError::Full);
        }
        self.frames.extend(frames.into_iter().map(|frame| (frame.id, frame.body)));
        if let Some(first) = first {
            self.frames = self.frames.split_off(&first);
        }
        Ok(())
    }

    async fn size(&mut self) -> Result<FileSize, StorageError> {
        Ok(FileSize { file_bytes: self.bytes() as u64, free_bytes: 0 })
    }

    async fn shrink(&mut self) -> Result<bool, StorageError> {
        Ok(false)
    }

    async fn checkpoint(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn close(self) -> Result<(), StorageError> {
        Ok(())
    }
}
