//! One process a data directory: a lock file, because SQLite's own lock could not say who is in the way.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::StorageError;

/// Name of the lock file.
const LOCK_FILE: &str = "mneme.lock";

/// Held as long as the node runs; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Makes the data directory if need be, and locks it.
///
/// # Errors
///
/// [`StorageError::Locked`] when another process has it; [`StorageError::Io`] when it cannot be made or written.
pub fn lock(directory: &Path) -> Result<DirectoryLock, StorageError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| StorageError::Io { action, path, source }
    };
    std::fs::create_dir_all(directory).map_err(io("create the directory", directory))?;
    let path = directory.join(LOCK_FILE);
    let options = File::options().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io("lock", &path)(source)),
    }
}
