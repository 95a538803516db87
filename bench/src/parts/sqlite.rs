//! The ceiling of the disk: frames appended to a SQLite file as a node appends them, with nothing around it.

use std::path::Path;
use std::time::Instant;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row as _};

use super::Session;
use crate::figures::{Frames, Percentiles, latencies};
use crate::sample::own_cpu_nanos;
use crate::workload::VALUE_BYTES;

/// Records of a commit: one writer alone, a group of 32 and a full one.
const RECORDS: [usize; 3] = [1, 32, 256];
/// Bytes of a record in a frame beyond its value: key, versions, deadlines, dots.
pub(crate) const RECORD_EXTRA_BYTES: usize = 80;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    for _ in 0..session.rounds() {
        for is_synced in [true, false] {
            for records in RECORDS {
                let directory = tempfile::Builder::new().prefix("mneme-bench-").tempdir()?;
                let frames = append(session, directory.path(), is_synced, records).await?;
                session.say(&format!(
                    "SQLite, {records} records a commit, synced {is_synced}: {:.0} records/s, {:.2} us each",
                    frames.records_per_second, frames.cpu_us_per_record
                ));
                session.results.frames.push(frames);
            }
        }
    }
    Ok(())
}

/// Version of the SQLite library in this program, which is the nodes' one.
pub(crate) async fn library_version() -> anyhow::Result<String> {
    let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await?;
    let version = sqlx::query("SELECT sqlite_version()").fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    Ok(version)
}

/// A file opened with the settings of a node's.
pub(crate) async fn open(directory: &Path, is_synced: bool) -> anyhow::Result<SqliteConnection> {
    let mut connection = SqliteConnectOptions::new()
        .filename(directory.join("frames.db"))
        .create_if_missing(true)
        .locking_mode(SqliteLockingMode::Exclusive)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(if is_synced { SqliteSynchronous::Full } else { SqliteSynchronous::Normal })
        .disable_statement_logging()
        .connect()
        .await?;
    sqlx::query("CREATE TABLE frames (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

async fn append(
    session: &Session,
    directory: &Path,
    is_synced: bool,
    records: usize,
) -> anyhow::Result<Frames> {
    let mut connection = open(directory, is_synced).await?;
    let frame = vec![b'v'; records * (VALUE_BYTES + RECORD_EXTRA_BYTES)];
    let settings = &session.results.settings;
    let (began, mut measured_from) = (Instant::now(), None);
    let (mut commits, mut commit) = (0u64, latencies());
    let until = settings.warm_seconds + settings.cell_seconds;
    while began.elapsed().as_secs_f64() < until {
        let sent = Instant::now();
        sqlx::query("INSERT INTO frames (body) VALUES (?)")
            .bind(frame.as_slice())
            .execute(&mut connection)
            .await?;
        if measured_from.is_some() {
            commits += 1;
            commit.saturating_record(u64::try_from(sent.elapsed().as_nanos())?);
        } else if began.elapsed().as_secs_f64() >= settings.warm_seconds {
            measured_from = Some((Instant::now(), own_cpu_nanos()));
        }
    }
    let (from, cpu) = measured_from.unwrap_or((began, 0));
    let (seconds, cpu) = (from.elapsed().as_secs_f64(), own_cpu_nanos() - cpu);
    connection.close().await?;
    let written = commits.max(1) as f64 * records as f64;
    Ok(Frames {
        is_synced,
        records_per_commit: records,
        records_per_second: written / seconds,
        cpu_us_per_record: cpu as f64 / 1_000.0 / written,
        commit: Percentiles::of(&commit).unwrap_or(Percentiles::NONE),
    })
}
