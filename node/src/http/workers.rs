//! The threads that serve connections of the client port: a runtime of one thread each, and the node's own.
//!
//! One runtime with several threads would be simpler, and costs a fifth more processor time a write: it wakes a second
//! thread for nearly every task that becomes ready, to find it done. Here a thread is woken for its own connections only.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads at most: a request is short, and each write takes its turn in one place anyway.
const WORKERS_MAX: usize = 16;
/// Connections of a thread before the next one is used.
const FILLED_CONNECTIONS: usize = 16;

/// Runtimes for connections. Dropped, they end, with everything in them.
pub struct Workers {
    workers: Vec<Worker>,
    _stop: DropGuard,
}

/// One of them.
struct Worker {
    handle: Handle,
    /// Held by each connection.
    connections: Arc<()>,
}

/// A place of one connection.
pub(super) struct Place {
    pub(super) handle: Handle,
    _connection: Arc<()>,
}

impl Workers {
    /// The runtime this is called on, and a thread for every core but one.
    ///
    /// # Errors
    ///
    /// When there can be no more threads or files.
    pub fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (mut workers, stop) = (vec![Worker::new(Handle::current())], CancellationToken::new());
        for number in 1..cores.min(WORKERS_MAX) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker::new(runtime.handle().clone()));
            let stopped = stop.clone().cancelled_owned();
            thread::Builder::new()
                .name(format!("clients-{number}"))
                .spawn(move || runtime.block_on(stopped))?;
        }
        Ok(Self { workers, _stop: stop.drop_guard() })
    }

    /// The runtime this is called on alone.
    pub fn here() -> Self {
        Self { workers: vec![Worker::new(Handle::current())], _stop: CancellationToken::new().drop_guard() }
    }

    /// Where the next connection goes: a thread is filled before the next is used, then the emptiest is.
    ///
    /// The first is the one of the node's links and clock: few connections stay there, and their writes need no wake-up
    /// of another thread. Measured on two cores with three nodes and 32 clients: shared out evenly instead, a write costs
    /// a quarter more processor time; all on one thread, a node reads at three quarters of the rate.
    pub(super) fn place(&self) -> Place {
        let has_room = |worker: &&Worker| worker.connections() < FILLED_CONNECTIONS;
        let emptiest = || self.workers.iter().min_by_key(|worker| worker.connections());
        let worker = self.workers.iter().find(has_room).or_else(emptiest).unwrap_or(&self.workers[0]);
        Place { handle: worker.handle.clone(), _connection: worker.connections.clone() }
    }
}

impl Worker {
    fn new(handle: Handle) -> Self {
        Self { handle, connections: Arc::new(()) }
    }

    fn connections(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(count: usize) -> Workers {
        let workers = (0..count).map(|_| Worker::new(Handle::current())).collect();
        Workers { workers, _stop: CancellationToken::new().drop_guard() }
    }

    fn filled(workers: &Workers) -> Vec<usize> {
        workers.workers.iter().map(Worker::connections).collect()
    }

    #[tokio::test]
    async fn a_thread_is_filled_before_the_next_is_used() {
        let workers = workers(3);
        let mut places: Vec<Place> = (0..20).map(|_| workers.place()).collect();
        assert_eq!(filled(&workers), [16, 4, 0]);
        places.extend((0..31).map(|_| workers.place()));
        assert_eq!(filled(&workers), [17, 17, 17]);
        places.drain(..16);
        assert_eq!(filled(&workers), [1, 17, 17]);
        places.push(workers.place());
        assert_eq!(filled(&workers), [2, 17, 17], "a place that is given back is used again");
    }

    #[tokio::test]
    async fn threads_end_with_the_workers() {
        let workers = Workers::start().expect("threads");
        // On the last thread, which is this one on a machine with one core.
        let handle = workers.workers[workers.workers.len() - 1].handle.clone();
        let task = handle.spawn(async { 7 });
        assert_eq!(task.await.expect("it ran"), 7);
        let is_own = workers.workers.len() > 1;
        let endless = handle.spawn(std::future::pending::<()>());
        drop(workers);
        if is_own {
            assert!(endless.await.expect_err("its thread is gone").is_cancelled());
        }
    }
}
