//! When a process is asked to stop.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM or SIGINT, or with `stop_with_stdin` when standard input ends.
pub async fn asked_to_stop(stop_with_stdin: bool) {
    let stdin_ends = async {
        if !stop_with_stdin {
            std::future::pending::<()>().await;
        }
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 64];
        while matches!(stdin.read(&mut buffer).await, Ok(1..)) {}
    };
    let signalled = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "failed to listen for a signal: stop the node with SIGKILL");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = signalled(SignalKind::terminate()) => {}
        () = signalled(SignalKind::interrupt()) => {}
        () = stdin_ends => {}
    }
}
