//! The file as the node sees it: a bag of frames and two small things besides.
//!
//! Memory is the table, the file is its memory of it. Reads never come here. [`sqlite`] is the real one; [`memory`] is
//! its twin for tests that own the clock (sqlx and a paused clock do not mix). Both pass the suite in
//! `storage/tests.rs`. Called by [`writer`], which owns the file, and once at start by [`recovery`].

mod compaction;
pub mod frame;
pub mod lock;
pub mod memory;
pub mod recovery;
pub mod sqlite;
pub mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use mneme_replica::effect::Meta;
use mneme_replica::id::NodeId;

/// When a commit counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// On the disk: survives the loss of power.
    #[default]
    Fsync,
    /// With the operating system: survives the death of the process, not the loss of power.
    Commit,
}

impl Durability {
    /// As flags and the status have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Commit => "commit",
        }
    }
}

/// What can go wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process holds the data directory.
    #[error(
        "another process uses the data directory {directory}; stop it, or give this node its own --data-dir"
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "the file {file} has schema version {found}, this program knows versions up to {known}; \
         it was left untouched: start the newer program again"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// SQLite is too old to be trusted with write-ahead logging.
    #[error("the SQLite library is {found}, older than {}", sqlite::VERSION_MIN)]
    OldSqlite {
        /// Its version.
        found: String,
    },
    /// Something in the file is not what was written.
    #[error("the file is damaged: {what}")]
    Corrupt {
        /// What.
        what: String,
    },
    /// The volume is full: nothing of the call is in the file.
    #[error("the volume is full")]
    Full,
    /// The directory or a file in it cannot be used.
    #[error("failed to {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// SQLite failed otherwise; what the file holds is unknown, so the process ends.
    #[error("failed to {action}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<sqlx::Error>,
    },
}

impl StorageError {
    /// Frames are numbered without gaps, and this one is not there.
    fn missing(frame: u64) -> Self {
        Self::Corrupt { what: format!("frame {frame} is missing") }
    }
}

impl From<frame::FrameError> for StorageError {
    fn from(error: frame::FrameError) -> Self {
        Self::Corrupt { what: error.to_string() }
    }
}

/// What the file is, besides its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The node's id; `None` in a file that was just made.
    pub node: Option<NodeId>,
    /// Members and tables.
    pub meta: Meta,
}

/// A frame as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFrame {
    /// Its number.
    pub id: u64,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Size of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSize {
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of it that hold nothing.
    pub free_bytes: u64,
}

/// A place that keeps frames.
///
/// No method is cancel-safe: each is run to its end by the one task that owns the storage.
pub trait Storage: Send + 'static {
    /// What the file is.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when it cannot be read.
    fn identity(&mut self) -> impl Future<Output = Result<Identity, StorageError>> + Send;

    /// Sets the node id of a new file.
    ///
    /// # Errors
    ///
    /// Any but `Full` is fatal.
    fn put_node(&mut self, node: NodeId) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Replaces what is remembered besides states.
    ///
    /// # Errors
    ///
    /// Any but `Full` is fatal.
    fn put_meta(&mut self, meta: &Meta) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Frames after `after` in order of their numbers, about `bytes` of them; none at the end.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when one cannot be read.
    fn frames(
        &mut self,
        after: u64,
        bytes: usize,
    ) -> impl Future<Output = Result<Vec<StoredFrame>, StorageError>> + Send;

    /// Numbers and sizes of the frames after `after` in order of their numbers, of about `bytes` of them; none at the end.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] when they cannot be read.
    fn frame_sizes(
        &mut self,
        after: u64,
        bytes: usize,
    ) -> impl Future<Output = Result<Vec<(u64, usize)>, StorageError>> + Send;

    /// Appends frames and removes those before `first`, in one transaction; without frames to remove and with
    /// one to append this is a single statement. Each frame is taken when it is written, so the file alone holds them
    /// all. After an error the file is as before the call.
    ///
    /// # Errors
    ///
    /// [`StorageError::Full`] when the volume is full. Any other is fatal.
    fn append(
        &mut self,
        frames: impl IntoIterator<Item = StoredFrame, IntoIter: Send> + Send,
        first: Option<u64>,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Size of the file.
    ///
    /// # Errors
    ///
    /// When SQLite cannot say.
    fn size(&mut self) -> impl Future<Output = Result<FileSize, StorageError>> + Send;

    /// Gives some of the free bytes back to the volume, if that is worth it; says whether it was.
    ///
    /// # Errors
    ///
    /// Any but `Full` is fatal.
    fn shrink(&mut self) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// Takes what was appended from a log into the file, when it is time to. What is in the log is durable: nobody waits for
    /// this, so it is not a part of the append that makes it due.
    ///
    /// # Errors
    ///
    /// Any is fatal. A full volume is none: the log holds everything, and it is tried again.
    fn checkpoint(&mut self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Closes the file.
    ///
    /// # Errors
    ///
    /// When SQLite cannot.
    fn close(self) -> impl Future<Output = Result<(), StorageError>> + Send;
}
