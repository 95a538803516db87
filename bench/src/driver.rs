//! Load clients in another language: a program that is told what to measure on its standard input.
//!
//! It prints `ready` once, then answers lines. `fill KEYS` writes every key once and prints `filled`. `cell OPERATION
//! CLIENTS RECORDS KEYS RATE WARM_MS MEASURE_MS` (`RATE` 0: a closed loop) prints `start` and `stop` at the ends of the
//! measured time, then its figures as JSON, latencies as pairs of nanoseconds and count.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::figures::latencies;
use crate::load::Tally;
use crate::workload::Spec;

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running driver, killed when dropped.
pub(crate) struct Driver {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What it says of a cell.
#[derive(Deserialize)]
struct Answer {
    operations: u64,
    failed: u64,
    reads: Vec<(u64, u64)>,
    writes: Vec<(u64, u64)>,
}

impl Driver {
    /// Starts `command` and waits until it is ready; what it says on standard error goes to `log`.
    pub(crate) async fn start<S: AsRef<OsStr>>(
        command: &[S],
        variables: &[(&str, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(command)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", command[0].as_ref().display()))?;
        let input = child.stdin.take().context("a piped standard input")?;
        let output = BufReader::new(child.stdout.take().context("a piped standard output")?).lines();
        let mut driver = Self { child, input, output };
        let ready = driver.expect("ready").await;
        ready.with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
        Ok(driver)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    async fn say(&mut self, line: String) -> anyhow::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await.context("a load driver ended")
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.output.next_line()).await.context("a load driver is silent")??;
        line.context("a load driver ended")
    }

    async fn expect(&mut self, word: &str) -> anyhow::Result<()> {
        let line = self.line().await?;
        anyhow::ensure!(line == word, "a load driver said {line:?} instead of {word:?}");
        Ok(())
    }

    /// Writes every key once.
    pub(crate) async fn fill(&mut self, keys: u64) -> anyhow::Result<()> {
        self.say(format!("fill {keys}")).await?;
        self.expect("filled").await
    }

    /// Measures; `sample` is called at both ends of the measured time.
    pub(crate) async fn measure<S>(
        &mut self,
        spec: &Spec,
        mut sample: impl FnMut() -> S,
    ) -> anyhow::Result<(S, S, Tally)> {
        let Spec { operation, shape, clients, rate, keys, warm, measured } = spec;
        let (operation, records, rate) = (operation.word(), shape.records(), rate.unwrap_or(0));
        let (warm, measured) = (warm.as_millis(), measured.as_millis());
        self.say(format!("cell {operation} {clients} {records} {keys} {rate} {warm} {measured}")).await?;
        self.expect("start").await?;
        let before = sample();
        self.expect("stop").await?;
        let after = sample();
        let answer: Answer = serde_json::from_str(&self.line().await?).context("figures of a load driver")?;
        let mut tally = Tally {
            operations: answer.operations,
            failed: answer.failed,
            unanswered: 0,
            reads: histogram(&answer.reads)?,
            writes: histogram(&answer.writes)?,
        };
        tally.count_unanswered(spec);
        Ok((before, after, tally))
    }
}

fn histogram(counts: &[(u64, u64)]) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = latencies();
    for (nanos, times) in counts {
        histogram.record_n(*nanos, *times)?;
    }
    Ok(histogram)
}
