//! The file: SQLite through sqlx, one connection, write-ahead log.
//!
//! sqlx hands every statement to a thread of its own (30 to 90 µs on two cores), so a group commit is one statement: an
//! insert that commits by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use mneme_replica::codec;
use mneme_replica::effect::Meta;
use mneme_replica::id::NodeId;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Executor, Row as _};
use xxhash_rust::xxh3::Xxh3;

use super::{Durability, FileSize, Identity, Storage, StorageError, StoredFrame};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "mneme.db";
/// Version of the schema written here.
pub const SCHEMA_VERSION: i64 = 1;
/// Older SQLite libraries can corrupt a write-ahead log that is reset while it is read.
pub const VERSION_MIN: &str = "3.51.3";
/// `Mnem`: tells a Mneme file from any other SQLite file.
const APPLICATION_ID: i64 = 0x4d6e_656d;
/// Pages given back to the volume in one slice.
const SHRINK_PAGES: i64 = 1_024;
/// Frames that SQLite's thread reads ahead of whoever asked: enough to hide the way between the two, and few, because a
/// share of compaction uses no more than one large frame.
const READ_AHEAD_FRAMES: usize = 16;
/// Free bytes that are kept: the next compaction needs them again.
const FREE_BYTES_KEPT: u64 = 56 << 20;

/// Pages of the log that are taken into the file at once: little enough that the commits after it do not wait long, enough
/// that a page is in the log several times before it is written to the file once.
const CHECKPOINT_PAGES: usize = 500;
/// Pages of the log from which SQLite does it as a part of the commit: one that is very large, or a file that could not grow.
const CHECKPOINT_PAGES_MAX: usize = 4_000;
/// Bytes of a page.
const PAGE_BYTES: usize = 4_096;
/// Pages that the insert of more than a page writes beyond it: its leaf, the map of what points where, the list of what is
/// free, the first one.
const EXTRA_PAGES: usize = 4;

/// Pages that the insert of a frame of so many bytes appends to the log, roughly.
fn log_pages(frame_bytes: usize) -> usize {
    1 + frame_bytes / PAGE_BYTES + EXTRA_PAGES.min(frame_bytes / (PAGE_BYTES / EXTRA_PAGES))
}

/// An open file.
#[derive(Debug)]
pub struct SqliteStorage {
    connection: SqliteConnection,
    /// Pages appended to the log since it was last taken into the file, roughly.
    log_pages: usize,
}

/// How to open a file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// When a commit counts as durable.
    pub durability: Durability,
    /// Pages the file may have; for tests of a full volume.
    pub pages_max: Option<u32>,
}

/// Path of the file in a data directory.
pub fn file_in(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> StorageError {
    move |error| {
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            Some(13) => StorageError::Full,
            // SQLITE_CORRUPT and SQLITE_NOTADB.
            Some(11 | 26) => StorageError::Corrupt { what: error.to_string() },
            _ => StorageError::Sqlite { action, source: Box::new(error) },
        }
    }
}

/// Version of the SQLite library in this program.
///
/// # Errors
///
/// When a database in memory cannot be opened.
pub async fn library_version() -> Result<String, StorageError> {
    let options = SqliteConnectOptions::new().in_memory(true).disable_statement_logging();
    let mut connection = options.connect().await.map_err(failed("open a database in memory"))?;
    let row = sqlx::query("SELECT sqlite_version()").fetch_one(&mut connection).await;
    let version = row.and_then(|row| row.try_get(0)).map_err(failed("ask SQLite for its version"))?;
    connection.close().await.map_err(failed("close a database in memory"))?;
    Ok(version)
}

/// Refuses a SQLite library that is older than [`VERSION_MIN`].
///
/// # Errors
///
/// [`StorageError::OldSqlite`], naming the version found.
pub fn check_library(version: &str) -> Result<(), StorageError> {
    let numbers = |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    if numbers(version) < numbers(VERSION_MIN) {
        return Err(StorageError::OldSqlite { found: version.to_owned() });
    }
    Ok(())
}

impl SqliteStorage {
    /// Opens the file in `directory`, or makes it.
    ///
    /// The caller holds the directory's lock.
    ///
    /// # Errors
    ///
    /// [`StorageError::Newer`] for a file of a newer schema, which is left untouched; [`StorageError::Corrupt`] for
    /// one that SQLite cannot read or that is no file of ours.
    pub async fn open(directory: &Path, options: &Options) -> Result<Self, StorageError> {
        let file = file_in(directory);
        if file.exists() {
            refuse_newer(&file).await?;
        }
        let mut connect = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .locking_mode(SqliteLockingMode::Exclusive)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match options.durability {
                Durability::Fsync => SqliteSynchronous::Full,
                Durability::Commit => SqliteSynchronous::Normal,
            })
            .busy_timeout(Duration::from_secs(1))
            .thread_name(|_| "mneme-sqlite".to_owned())
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES_MAX.to_string())
            .row_buffer_size(READ_AHEAD_FRAMES)
            .disable_statement_logging();
        if let Some(pages) = options.pages_max {
            connect = connect.pragma("max_page_count", pages.to_string());
        }
        let mut connection = connect.connect().await.map_err(failed("open the file"))?;
        match prepare(&mut connection, &file).await {
            Ok(()) => Ok(Self { connection, log_pages: 0 }),
            Err(error) => {
                // Left to close by itself it would do so when another file is in this one's place. How a file that is
                // no good closes is of no interest.
                let _ = connection.close().await;
                Err(error)
            }
        }
    }

    /// Changes the room that there is.
    #[cfg(test)]
    pub(super) async fn set_pages_max(&mut self, pages: usize) -> Result<(), StorageError> {
        let statement = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(statement).fetch_one(&mut self.connection).await.map_err(failed("limit the file"))?;
        Ok(())
    }

    async fn put(&mut self, name: &'static str, content: &[u8]) -> Result<(), StorageError> {
        let mut value = checksum(name, content).to_be_bytes().to_vec();
        value.extend_from_slice(content);
        sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(name)
            .bind(value)
            .execute(&mut self.connection)
            .await
            .map_err(failed("write to the file"))?;
        Ok(())
    }

    async fn get(&mut self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = ?")
            .bind(name)
            .fetch_optional(&mut self.connection)
            .await
            .map_err(failed("read the file"))?;
        let Some(row) = row else { return Ok(None) };
        let value: Vec<u8> = row.try_get(0).map_err(failed("read the file"))?;
        match value.split_first_chunk::<8>() {
            Some((sum, content)) if u64::from_be_bytes(*sum) == checksum(name, content) => {
                Ok(Some(content.to_vec()))
            }
            _ => Err(StorageError::Corrupt { what: format!("the checksum of {name:?} does not match") }),
        }
    }
}

/// Makes the schema where there is none, and checks that it is ours.
async fn prepare(connection: &mut SqliteConnection, file: &Path) -> Result<(), StorageError> {
    if pragma(connection, "SELECT count(*) FROM sqlite_schema").await? == 0 {
        create(connection).await?;
    }
    check_version(connection, file).await?;
    if pragma(connection, "PRAGMA application_id").await? != APPLICATION_ID {
        return Err(StorageError::Corrupt { what: "it is not a file of Mneme".to_owned() });
    }
    Ok(())
}

fn checksum(name: &str, content: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(name.as_bytes());
    sum.update(content);
    sum.digest()
}

/// Path of what SQLite keeps beside the file under this suffix.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Looks at the version without changing a byte: opened for writing, the file would take in its log when it is closed.
async fn refuse_newer(file: &Path) -> Result<(), StorageError> {
    if beside(file, "-journal").exists() {
        // The first start was cut short, before there was a log. Only opening for writing undoes that.
        return Ok(());
    }
    // A reader makes the log and its index where there is none; nobody else is here, so they are its own.
    let made = ["-wal", "-shm"].map(|suffix| beside(file, suffix));
    let made: Vec<PathBuf> = made.into_iter().filter(|path| !path.exists()).collect();
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let options = options.busy_timeout(Duration::from_secs(1)).disable_statement_logging();
    let mut connection = options.connect().await.map_err(failed("open the file"))?;
    let checked = check_version(&mut connection, file).await;
    connection.close().await.map_err(failed("close the file"))?;
    for path in made.into_iter().filter(|path| path.exists()) {
        std::fs::remove_file(&path).map_err(|source| StorageError::Io { action: "remove", path, source })?;
    }
    checked
}

async fn check_version(connection: &mut SqliteConnection, file: &Path) -> Result<(), StorageError> {
    let found = pragma(connection, "PRAGMA user_version").await?;
    let application = pragma(connection, "PRAGMA application_id").await?;
    if application == APPLICATION_ID && found > SCHEMA_VERSION {
        return Err(StorageError::Newer { file: file.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(())
}

async fn pragma(connection: &mut SqliteConnection, statement: &'static str) -> Result<i64, StorageError> {
    let row = sqlx::query(statement).fetch_one(connection).await.map_err(failed("read the file"))?;
    row.try_get(0).map_err(failed("read the file"))
}

async fn create(connection: &mut SqliteConnection) -> Result<(), StorageError> {
    let mut transaction = connection.begin().await.map_err(failed("create the file"))?;
    sqlx::raw_sql(include_str!("../../migrations/0001_initial.sql"))
        .execute(&mut *transaction)
        .await
        .map_err(failed("create the file"))?;
    for statement in [
        sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")),
        sqlx::AssertSqlSafe(format!("PRAGMA user_version = {SCHEMA_VERSION}")),
    ] {
        sqlx::query(statement).execute(&mut *transaction).await.map_err(failed("create the file"))?;
    }
    transaction.commit().await.map_err(failed("create the file"))
}

fn as_integer(number: u64) -> i64 {
    // Frames are counted from 1: there are never 2^63 of them.
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Rows of a number and something about the frame, until `bytes` are reached; `take` says how many each has.
async fn up_to<'a, C, T>(
    bytes: usize,
    mut rows: BoxStream<'a, Result<SqliteRow, sqlx::Error>>,
    take: impl Fn(u64, C) -> (usize, T),
) -> Result<Vec<T>, StorageError>
where
    C: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    let (mut taken, mut taken_bytes) = (Vec::new(), 0);
    while taken_bytes < bytes
        && let Some(row) = rows.try_next().await.map_err(failed("read the file"))?
    {
        let id: i64 = row.try_get(0).map_err(failed("read the file"))?;
        let column: C = row.try_get(1).map_err(failed("read the file"))?;
        let id = u64::try_from(id)
            .map_err(|_| StorageError::Corrupt { what: "a frame has no number".to_owned() })?;
        let (row_bytes, item) = take(id, column);
        taken_bytes += row_bytes;
        taken.push(item);
    }
    Ok(taken)
}

impl Storage for SqliteStorage {
    async fn identity(&mut self) -> Result<Identity, StorageError> {
        let corrupt = |what: &str| StorageError::Corrupt { what: what.to_owned() };
        let node = match self.get("identity").await? {
            None => None,
            Some(bytes) => {
                let bytes = bytes.first_chunk::<8>().ok_or_else(|| corrupt("the node id is malformed"))?;
                Some(NodeId::new(u64::from_be_bytes(*bytes)))
            }
        };
        let meta = match self.get("members").await? {
            None => Meta::default(),
            Some(bytes) => codec::decode_meta(&bytes).map_err(|error| corrupt(&error.to_string()))?,
        };
        Ok(Identity { node, meta })
    }

    async fn put_node(&mut self, node: NodeId) -> Result<(), StorageError> {
        self.put("identity", &node.number().to_be_bytes()).await
    }

    async fn put_meta(&mut self, meta: &Meta) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        codec::encode_meta(meta, &mut bytes);
        self.put("members", &bytes).await
    }

    async fn frames(&mut self, after: u64, bytes: usize) -> Result<Vec<StoredFrame>, StorageError> {
        let rows = sqlx::query("SELECT id, body FROM frames WHERE id > ? ORDER BY id")
            .bind(as_integer(after))
            .fetch(&mut self.connection);
        up_to(bytes, rows, |id, body: Vec<u8>| (body.len(), StoredFrame { id, body })).await
    }

    async fn frame_sizes(&mut self, after: u64, bytes: usize) -> Result<Vec<(u64, usize)>, StorageError> {
        let rows = sqlx::query("SELECT id, length(body) FROM frames WHERE id > ? ORDER BY id")
            .bind(as_integer(after))
            .fetch(&mut self.connection);
        // SQLite takes no value above 1 GB.
        up_to(bytes, rows, |id, length: u32| (length as usize, (id, length as usize))).await
    }

    async fn append(
        &mut self,
        frames: impl IntoIterator<Item = StoredFrame, IntoIter: Send> + Send,
        first: Option<u64>,
    ) -> Result<(), StorageError> {
        let appended_pages = &mut self.log_pages;
        let mut insert = |frame: StoredFrame| {
            *appended_pages += log_pages(frame.body.len());
            sqlx::query("INSERT INTO frames (id, body) VALUES (?, ?)")
                .bind(as_integer(frame.id))
                .bind(frame.body)
        };
        let mut frames = frames.into_iter();
        let (one, another) = (frames.next(), frames.next());
        if first.is_none() && another.is_none() {
            if let Some(frame) = one {
                // Done when it says how many rows it changed. What it says after that is not waited for: it would wake this
                // thread once more for each commit.
                let mut results = self.connection.fetch_many(insert(frame));
                results.try_next().await.map_err(failed("append to the file"))?;
            }
            return Ok(());
        }
        let mut transaction = self.connection.begin().await.map_err(failed("append to the file"))?;
        for frame in one.into_iter().chain(another).chain(frames) {
            insert(frame).execute(&mut *transaction).await.map_err(failed("append to the file"))?;
        }
        if let Some(first) = first {
            sqlx::query("DELETE FROM frames WHERE id < ?")
                .bind(as_integer(first))
                .execute(&mut *transaction)
                .await
                .map_err(failed("compact the file"))?;
        }
        transaction.commit().await.map_err(failed("append to the file"))
    }

    async fn size(&mut self) -> Result<FileSize, StorageError> {
        let page_bytes = pragma(&mut self.connection, "PRAGMA page_size").await?;
        let pages = pragma(&mut self.connection, "PRAGMA page_count").await?;
        let free = pragma(&mut self.connection, "PRAGMA freelist_count").await?;
        let bytes = |pages: i64| u64::try_from(pages.saturating_mul(page_bytes)).unwrap_or(0);
        Ok(FileSize { file_bytes: bytes(pages), free_bytes: bytes(free) })
    }

    async fn shrink(&mut self) -> Result<bool, StorageError> {
        let size = self.size().await?;
        if size.free_bytes < FREE_BYTES_KEPT || size.free_bytes * 2 < size.file_bytes {
            return Ok(false);
        }
        let statement = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"));
        sqlx::query(statement).fetch_all(&mut self.connection).await.map_err(failed("shrink the file"))?;
        Ok(true)
    }

    async fn checkpoint(&mut self) -> Result<(), StorageError> {
        if self.log_pages < CHECKPOINT_PAGES {
            return Ok(());
        }
        self.log_pages = 0;
        let taken = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_all(&mut self.connection).await;
        match taken.map_err(failed("take the log into the file")) {
            // A file that cannot grow stays behind its log. It is tried again when as much is in it once more.
            Ok(_) | Err(StorageError::Full) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn close(self) -> Result<(), StorageError> {
        self.connection.close().await.map_err(failed("close the file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite calls it: in the log after every commit, or at checkpoints alone.
    const FULL: i64 = 2;
    const NORMAL: i64 = 1;

    async fn synchronous(durability: Durability) -> i64 {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options { durability, ..Options::default() };
        let mut storage = SqliteStorage::open(directory.path(), &options).await.expect("a new file");
        let log = sqlx::query("PRAGMA journal_mode").fetch_one(&mut storage.connection).await;
        assert_eq!(log.expect("an answer").get::<String, _>(0), "wal");
        pragma(&mut storage.connection, "PRAGMA synchronous").await.expect("an answer")
    }

    #[tokio::test]
    async fn a_commit_waits_for_the_disk_only_where_that_was_asked_for() {
        assert_eq!(synchronous(Durability::Fsync).await, FULL);
        assert_eq!(synchronous(Durability::Commit).await, NORMAL);
        assert_eq!(synchronous(Options::default().durability).await, FULL);
    }
}
