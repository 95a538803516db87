//! From the file to a replica: the same merge as replication, so order, duplicates and superseded states are harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mneme_api::TableName;
use mneme_replica::Replica;
use mneme_replica::effect::{Meta, PersistItem};
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::record::Row;
use mneme_replica::status::Settings;
use mneme_replica::time::ClockSample;
use mneme_replica::version_vector::VersionVector;

use super::frame::{self, Entry};
use super::sqlite::{self, Options, SqliteStorage};
use super::{Storage, StorageError};

/// Bytes of frames read at once.
const READ_BYTES: usize = 4 << 20;

/// What the writer has to know of the file it goes on writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What the frames amount to.
    pub vector: VersionVector,
    /// Number of the oldest frame.
    pub first: u64,
    /// Number of the next frame.
    pub next: u64,
    /// Bytes of all frames.
    pub bytes: u64,
}

/// A replica with the file it came from.
pub struct Recovered<S> {
    /// The replica, not started.
    pub replica: Replica,
    /// The file, to be written by one task.
    pub storage: S,
    /// Where the file stands.
    pub stored: Stored,
    /// Where a damaged file was put, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// A node cannot start on this file.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The configuration has another kind for a table than the file.
    #[error(
        "table {table} was stored with another kind than the configuration gives it: \
         a kind is fixed at first use; declare it as before, or use another name"
    )]
    TableKind {
        /// The table.
        table: TableName,
    },
}

/// Opens the file in `directory` and loads it. A damaged file is set aside, never deleted, and a new one begun under a
/// new node id: what it held comes back from peers.
///
/// `settings` makes the settings for an origin, `draw` is a source of random numbers.
///
/// # Errors
///
/// [`RecoverError`]; the file is then as it was.
pub async fn recover(
    directory: &Path,
    options: &Options,
    sample: ClockSample,
    settings: impl Fn(Origin) -> Settings,
    mut draw: impl FnMut() -> u64,
) -> Result<Recovered<SqliteStorage>, RecoverError> {
    let mut set_aside = None;
    loop {
        let tried = match SqliteStorage::open(directory, options).await {
            Ok(storage) => load(storage, sample, &settings, &mut draw).await,
            Err(error) => Err(error.into()),
        };
        match tried {
            Err(RecoverError::Storage(StorageError::Corrupt { what })) if set_aside.is_none() => {
                tracing::error!(%what, "the file is damaged");
                set_aside = Some(put_aside(directory, sample.wall_ms)?);
            }
            tried => return tried.map(|recovered| Recovered { set_aside, ..recovered }),
        }
    }
}

/// Loads a replica from an open storage, which is closed when that fails.
///
/// # Errors
///
/// [`RecoverError`].
pub async fn load<S: Storage>(
    mut storage: S,
    sample: ClockSample,
    settings: impl Fn(Origin) -> Settings,
    draw: impl FnMut() -> u64,
) -> Result<Recovered<S>, RecoverError> {
    match try_load(&mut storage, sample, settings, draw).await {
        Ok((replica, stored)) => Ok(Recovered { replica, storage, stored, set_aside: None }),
        Err(error) => {
            // Closed late, SQLite would take away the log of the file that comes in this one's place. How it closes
            // a damaged file is of no interest.
            let _ = storage.close().await;
            Err(error)
        }
    }
}

async fn try_load<S: Storage>(
    storage: &mut S,
    sample: ClockSample,
    settings: impl Fn(Origin) -> Settings,
    mut draw: impl FnMut() -> u64,
) -> Result<(Replica, Stored), RecoverError> {
    let identity = storage.identity().await?;
    let node = match identity.node {
        Some(node) => node,
        None => {
            let node = NodeId::new(draw());
            storage.put_node(node).await?;
            node
        }
    };
    let settings = settings(Origin { node, epoch: draw() });
    check_kinds(&identity.meta, &settings)?;
    let mut recovery = Replica::recover(settings, sample);
    let stored = read(storage, |row| recovery.load(row)).await?;
    let replica = recovery.finish(identity.meta, stored.vector.clone());
    Ok((replica, stored))
}

fn check_kinds(meta: &Meta, settings: &Settings) -> Result<(), RecoverError> {
    for table in &settings.tables {
        let is_other_kind =
            |info: &&mneme_replica::message::TableInfo| info.name == table.name && info.kind != table.kind;
        if meta.tables.iter().any(|info| is_other_kind(&info)) {
            return Err(RecoverError::TableKind { table: table.name.clone() });
        }
    }
    Ok(())
}

/// Reads every frame, and says where the file stands.
///
/// Frames are numbered without gaps from the number that the newest compacted frame names, so a frame that is missing
/// is found like one that is damaged.
///
/// # Errors
///
/// [`StorageError::Corrupt`] when a frame is damaged or missing.
pub async fn read<S: Storage>(storage: &mut S, mut take: impl FnMut(Row)) -> Result<Stored, StorageError> {
    let mut stored = Stored { vector: VersionVector::default(), first: 1, next: 1, bytes: 0 };
    let (mut lowest, mut last) = (None, 0);
    loop {
        let frames = storage.frames(last, READ_BYTES).await?;
        if frames.is_empty() {
            break;
        }
        for frame in frames {
            if lowest.is_some() && frame.id != last + 1 {
                return Err(StorageError::missing(last + 1));
            }
            lowest.get_or_insert(frame.id);
            last = frame.id;
            stored.bytes += frame.body.len() as u64;
            for entry in frame::decode(frame.id, &frame.body)? {
                match entry {
                    Entry::Write(write) => {
                        // Its rows say when its origin was heard: claimed before they are taken.
                        let write = Arc::new(write);
                        PersistItem::Write(write.clone()).claim(&mut stored.vector, 0);
                        Arc::unwrap_or_clone(write).rows.into_iter().for_each(&mut take);
                    }
                    Entry::Rows(rows) => rows.into_iter().for_each(&mut take),
                    Entry::Vector(vector) => stored.vector.join(&vector),
                    Entry::First(first) => stored.first = first,
                }
            }
        }
    }
    if lowest.is_some_and(|lowest| lowest != stored.first) || lowest.is_none() && stored.first != 1 {
        return Err(StorageError::missing(stored.first));
    }
    stored.next = last + 1;
    Ok(stored)
}

/// Renames the file and what SQLite keeps beside it.
fn put_aside(directory: &Path, now_ms: u64) -> Result<PathBuf, StorageError> {
    let file = sqlite::file_in(directory);
    let aside = directory.join(format!("{}.damaged-{now_ms}", sqlite::FILE_NAME));
    for suffix in ["-wal", "-shm", ""] {
        let from = PathBuf::from(format!("{}{suffix}", file.display()));
        let to = PathBuf::from(format!("{}{suffix}", aside.display()));
        match std::fs::rename(&from, &to) {
            // SQLite may have taken its log away meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(StorageError::Io { action: "rename", path: from, source }),
            Ok(()) => {}
        }
    }
    Ok(aside)
}
