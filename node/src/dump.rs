//! `mneme-node dump`: the current records of a stopped node.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use mneme_api::{Key, Pattern, TableName};
use mneme_replica::Replica;
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::status::Settings;
use mneme_replica::table::Found;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use crate::http::list::listed;
use crate::http::records::shown_content_type;
use crate::storage::recovery;
use crate::storage::sqlite::{Options, SqliteStorage, file_in};
use crate::storage::{Storage, StorageError, lock};
use crate::wall_clock;

/// Records written at a time.
const PAGE_RECORDS: usize = 1_000;

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file.
    #[error("failed to read the node's file")]
    Storage(#[from] StorageError),
    /// There is none.
    #[error("there is no database in {directory}")]
    Missing {
        /// Where.
        directory: PathBuf,
    },
    /// The table's name is none.
    #[error("{name:?} is no table name")]
    TableName {
        /// The name.
        name: String,
    },
    /// No such table: whoever leaves one out means one that is there.
    #[error("the file has no table {table}; it has {known}")]
    TableUnknown {
        /// The name.
        table: TableName,
        /// Those there are.
        known: String,
    },
    /// The output is there already.
    #[error("{path} exists: it is not overwritten")]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output cannot be written.
    #[error("failed to write the records")]
    Write(#[from] std::io::Error),
    /// The output cannot be written.
    #[error("failed to write the SQLite file")]
    Sqlite(#[from] sqlx::Error),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DumpedRecord<'a> {
    table: &'a TableName,
    #[serde(flatten)]
    record: mneme_api::ListedRecord,
}

/// Writes the records to standard output, or into a new SQLite file.
///
/// # Errors
///
/// [`DumpError`].
pub async fn dump(directory: &Path, sqlite: Option<&Path>, left_out: &[String]) -> Result<(), DumpError> {
    let left_out = left_out
        .iter()
        .map(|name| name.parse::<TableName>().map_err(|_| DumpError::TableName { name: name.clone() }));
    let left_out: BTreeSet<TableName> = left_out.collect::<Result<_, _>>()?;
    if !file_in(directory).exists() {
        return Err(DumpError::Missing { directory: directory.to_owned() });
    }
    if let Some(path) = sqlite.filter(|path| path.exists()) {
        return Err(DumpError::Exists { path: path.to_owned() });
    }
    let _lock = lock::lock(directory)?;
    let (replica, now_ms) = load(directory).await?;
    let known: BTreeSet<&TableName> = replica.tables().map(|table| table.name()).collect();
    if let Some(table) = left_out.iter().find(|table| !known.contains(table)) {
        let known = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(DumpError::TableUnknown { table: table.clone(), known });
    }
    match sqlite {
        None => {
            let mut output = std::io::BufWriter::new(std::io::stdout().lock());
            for page in pages(&replica, &left_out, now_ms) {
                for (table, key, found) in page {
                    let record = listed(&key, &found, now_ms, true);
                    serde_json::to_writer(&mut output, &DumpedRecord { table: &table, record })
                        .map_err(std::io::Error::from)?;
                    output.write_all(b"\n")?;
                }
            }
            output.flush()?;
        }
        Some(path) => {
            let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
            let mut connection = options.connect().await?;
            write_sqlite(&mut connection, pages(&replica, &left_out, now_ms)).await?;
            connection.close().await?;
        }
    }
    Ok(())
}

async fn load(directory: &Path) -> Result<(Replica, u64), DumpError> {
    let mut storage = SqliteStorage::open(directory, &Options::default()).await?;
    let identity = storage.identity().await?;
    let sample = wall_clock::sample();
    let settings = Settings {
        origin: Origin { node: identity.node.unwrap_or(NodeId::new(0)), epoch: 0 },
        cluster: String::new(),
        name: String::new(),
        address: String::new(),
        version: String::new(),
        tables: Vec::new(),
        join_timeout_ms: 0,
        features: Vec::new(),
    };
    let mut recovery = Replica::recover(settings, sample);
    let stored = recovery::read(&mut storage, |row| recovery.load(row)).await?;
    storage.close().await?;
    Ok((recovery.finish(identity.meta, stored.vector), sample.wall_ms))
}

/// Live records of all tables, table by table in key order.
fn pages<'a>(
    replica: &'a Replica,
    left_out: &'a BTreeSet<TableName>,
    now_ms: u64,
) -> impl Iterator<Item = Vec<(TableName, Key, Found)>> + 'a {
    let tables = replica.tables().filter(|table| !left_out.contains(table.name()));
    tables.flat_map(move |table| {
        let mut after = Some(None::<Key>);
        std::iter::from_fn(move || {
            let page = table.scan(&Pattern::any(), after.take()?.as_ref(), PAGE_RECORDS, now_ms);
            after = page.resume_after.map(Some);
            let name = |(key, found)| (table.name().clone(), key, found);
            Some(page.records.into_iter().map(name).collect::<Vec<_>>())
        })
    })
}

async fn write_sqlite(
    connection: &mut SqliteConnection,
    pages: impl Iterator<Item = Vec<(TableName, Key, Found)>>,
) -> Result<(), DumpError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "CREATE TABLE records (tbl TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, content_type TEXT NOT NULL, \
         version TEXT NOT NULL, idle_deadline_ms INTEGER NOT NULL, absolute_deadline_ms INTEGER NOT NULL, \
         PRIMARY KEY (tbl, key))",
    )
    .execute(&mut *transaction)
    .await?;
    let integer = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    for (table, key, found) in pages.flatten() {
        sqlx::query("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(table.as_str().to_owned())
            .bind(key.to_path())
            .bind(found.bytes().to_vec())
            .bind(shown_content_type(found.content_type()).to_owned())
            .bind(found.version().etag())
            .bind(integer(found.deadline_ms))
            .bind(integer(found.absolute_deadline_ms))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
