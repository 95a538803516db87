//! When a process is asked to stop, and when it must not go on.

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

/// Makes every panic, of whichever task or thread, the end of the process, after the usual message.
///
/// A task that panics in a step lets go of the lock and leaves the replica half changed; whoever comes next would serve
/// and replicate that. What the file holds is whole, and a start merges the rest from peers.
pub fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Set in the process that is to panic.
    const PANICS: &str = "MNEME_TEST_PANICS";
    const SIGABRT: i32 = 6;

    #[test]
    fn a_panic_of_any_task_ends_the_process() {
        if std::env::var_os(PANICS).is_some() {
            super::abort_on_panic();
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let ended = runtime.block_on(runtime.spawn(async { panic!("in a task") }));
            // Without the hook the panic would be no more than this.
            assert!(ended.is_err());
            return;
        }
        let program = std::env::current_exe().expect("this test's program");
        let name = "shutdown::tests::a_panic_of_any_task_ends_the_process";
        let child = Command::new(program).args(["--exact", name, "--nocapture"]).env(PANICS, "1").output();
        let child = child.expect("it runs");
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(SIGABRT), "{said}");
        assert!(said.contains("in a task"), "{said}");
    }
}
