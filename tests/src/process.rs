//! One child process: its log, its signals, its end.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::binary;
use crate::wait::wait_for;

/// Lines of a log that are printed when a test fails.
const LOG_LINES_SHOWN: usize = 80;

/// A running child. Dropping it kills it, frozen or not; a test that fails then also prints the end of its log.
///
/// The child is started through `setpriv --pdeathsig`, so that even a suite that is itself killed leaves none behind.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (the program and its arguments), appending what it prints to `log`.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(name: &str, command: impl IntoIterator<Item = S>, log: &Path) -> Self {
        Self::start_with(name, command, [], log)
    }

    /// As [`Process::start`], with variables added to its environment.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_with<S: AsRef<OsStr>>(
        name: &str,
        command: impl IntoIterator<Item = S>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        log: &Path,
    ) -> Self {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("failed to open the log {}: {error}", log.display()));
        let errors = output.try_clone().expect("a second handle of an open file");
        let child = Command::new(binary::required("setpriv"))
            .args(["--pdeathsig", "KILL", "--"])
            .args(command)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// The process id. It is the program's own: what it was started through replaced itself by it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it stands (SIGSTOP), as a machine that hangs.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end (SIGTERM) without waiting.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to end as Ctrl-C does (SIGINT) without waiting.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of an own child")
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Panics
    ///
    /// When it has not ended within `limit`, or was ended by a signal.
    pub async fn exit_code(mut self, limit: Duration) -> i32 {
        let what = format!("{} ends", self.name);
        let status = wait_for(limit, &what, async || self.ended()).await;
        status.code().unwrap_or_else(|| panic!("{} ended by a signal: {status}", self.name))
    }

    /// All it printed so far, over all starts with the same log.
    #[must_use]
    pub fn output(&self) -> String {
        read_log(&self.log)
    }

    /// Processor time it used so far, all its threads, in nanoseconds.
    #[must_use]
    pub fn cpu_nanos(&self) -> u64 {
        cpu_nanos(self.id()).unwrap_or(0)
    }

    /// Bytes of memory that it holds now, and the most that it held since [`Process::forget_peak_memory`].
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[must_use]
    pub fn memory_bytes(&self) -> (u64, u64) {
        let status = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(status).expect("a process that runs");
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of this name");
            let kibibytes: u64 =
                line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
            kibibytes << 10
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// How many files it has open: each connection is one.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a process that runs").count()
    }

    /// Begins anew to look for the most memory that it holds.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn forget_peak_memory(&self) {
        let file = format!("/proc/{}/clear_refs", self.id());
        std::fs::write(file, "5").expect("a process that runs");
    }

    fn signal(&self, signal: Signal) {
        // A child that was not waited for keeps its id, so this cannot reach a stranger.
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the id of a child");
        kill_process(id, signal).unwrap_or_else(|error| panic!("failed to signal {}: {error}", self.name));
    }

    fn end(&mut self) {
        // Both fail only for a child that is gone already. SIGKILL ends a frozen process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("{}", log_end(&self.name, &self.log));
        }
    }
}

/// The last lines of a log under a heading, for people who look for why a test failed.
fn log_end(name: &str, log: &Path) -> String {
    let output = read_log(log);
    let lines: Vec<&str> = output.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    format!("--- {name}: last {} of {} lines ---\n{}", shown.len(), lines.len(), shown.join("\n"))
}

/// What stands in a log; nothing when there is none yet.
#[must_use]
pub fn read_log(log: &Path) -> String {
    std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Processor time a process used so far, all its threads, in nanoseconds.
///
/// From `schedstat` of each thread, which counts nanoseconds; `stat` counts hundredths of a second. Threads that
/// ended meanwhile are missing, so measure servers whose threads stay.
#[must_use]
pub fn cpu_nanos(process_id: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{process_id}/task")).ok()?;
    Some(
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn output_and_exit_code_are_the_programs_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let process = Process::start("shell", ["sh", "-c", "echo out; echo err >&2; exit 3"], &log);
        assert_eq!(process.exit_code(SOON).await, 3);
        assert_eq!(read_log(&log), "out\nerr\n");
    }

    #[tokio::test]
    async fn a_frozen_process_stands_still_and_goes_on_when_thawed() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let process = Process::start("counter", ["sh", "-c", "while :; do echo; done"], &log);
        wait_for(SOON, "it prints", async || (!process.output().is_empty()).then_some(())).await;
        process.freeze();
        let state = format!("/proc/{}/stat", process.id());
        wait_for(SOON, "it stands still", async || {
            let stat = std::fs::read_to_string(&state).ok()?;
            stat.contains(") T ").then_some(())
        })
        .await;
        let frozen = process.output().len();
        process.thaw();
        wait_for(SOON, "it goes on", async || (process.output().len() > frozen).then_some(())).await;
        assert!(process.cpu_nanos() > 0);
    }

    #[test]
    fn dropping_a_frozen_process_ends_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let process = Process::start("sleeper", ["sleep", "600"], &directory.path().join("log"));
        process.freeze();
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
