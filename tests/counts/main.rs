//! Instructions of the core's operations: what a change makes slower shows here on any machine, however busy it is.
//!
//! ```text
//! cargo build --workspace && target/debug/counts            compares with tests/counts/baseline.txt
//! cargo build --workspace && target/debug/counts --update   writes that file anew
//! ```
//!
//! The program runs itself under callgrind, which counts the instructions of each function of [`operations`] with all that
//! it calls. The profile is the one of the tests, in which the core and what it uses are optimised.

mod operations;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Parser;

/// By how much an operation may take more instructions than it did. Other versions of the C library and other processors
/// (their vector instructions) make some hundredths of it.
const MARGIN_PERCENT: u64 = 10;

/// Counts instructions of the core's operations.
#[derive(Parser)]
struct Cli {
    /// Write the file of what is expected.
    #[arg(long)]
    update: bool,
    /// Do each operation many times: what is counted.
    #[arg(long, hide = true)]
    operations: bool,
}

/// Instructions by operation.
type Counts = BTreeMap<String, u64>;

fn baseline_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts/baseline.txt")
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if cli.operations {
        operations::run();
        return Ok(());
    }
    let counts = count()?;
    let file = baseline_file();
    if cli.update {
        let lines = counts.iter().map(|(name, count)| format!("{name} {count}\n"));
        return std::fs::write(&file, lines.collect::<String>()).context("failed to write what is expected");
    }
    let expected = std::fs::read_to_string(&file)
        .with_context(|| format!("failed to read {}", file.display()))
        .and_then(|text| parse(&text))?;
    let slower = compare(&expected, &counts);
    if !slower.is_empty() {
        bail!(
            "{} took more than {MARGIN_PERCENT} % more instructions than tests/counts/baseline.txt says. If that is \
             worth it, say why in the commit and write the file anew: target/debug/counts --update",
            slower.join(", ")
        );
    }
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Counts> {
    let line = |line: &str| {
        let (name, count) = line.split_once(' ').context("a line is a name and a number")?;
        Ok((name.to_owned(), count.parse().with_context(|| format!("{count:?} is no number"))?))
    };
    text.lines().map(line).collect()
}

/// Prints both side by side; the names of what is slower, new or gone.
fn compare(expected: &Counts, counts: &Counts) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in expected.keys().chain(counts.keys().filter(|name| !expected.contains_key(*name))) {
        let (Some(before), Some(now)) = (expected.get(name), counts.get(name)) else {
            println!("{name}: only on one side");
            wrong.push(name.clone());
            continue;
        };
        let percent = *now as f64 / *before as f64 * 100.0 - 100.0;
        println!("{name:24} {before:>10} expected {now:>10} now {percent:>+7.1} %");
        if *now > before + before * MARGIN_PERCENT / 100 {
            wrong.push(name.clone());
        }
    }
    wrong
}

/// Runs the operations under callgrind.
fn count() -> anyhow::Result<Counts> {
    let directory = tempfile::tempdir().context("a directory")?;
    let out = directory.path().join("callgrind.out");
    let mut option = std::ffi::OsString::from("--callgrind-out-file=");
    option.push(&out);
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(option)
        .arg(std::env::current_exe()?)
        .arg("--operations")
        .status()
        .context("failed to run valgrind (Debian: package valgrind)")?;
    ensure!(valgrind.success(), "valgrind ended with {valgrind}");
    let annotated = Command::new("callgrind_annotate")
        .args(["--inclusive=yes", "--threshold=100"])
        .arg(&out)
        .output()
        .context("failed to run callgrind_annotate, which comes with valgrind")?;
    ensure!(annotated.status.success(), "callgrind_annotate ended with {}", annotated.status);
    let text = String::from_utf8_lossy(&annotated.stdout);
    let mut counts = Counts::new();
    for (name, times) in operations::ALL {
        let total = inclusive(&text, name).with_context(|| format!("callgrind does not know {name}"))?;
        counts.insert((*name).to_owned(), total / times);
    }
    Ok(counts)
}

/// Instructions of a function of [`operations`] and all that it calls: `1,234 (5.6%)  file:counts::operations::NAME [program]`.
fn inclusive(annotated: &str, name: &str) -> Option<u64> {
    let path = format!("::operations::{name}");
    let line = annotated.lines().find(|line| {
        line.split_once(&path).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with([' ', ':']))
    })?;
    line.split_whitespace().next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Counts {
        parse(text).expect("well-formed")
    }

    #[test]
    fn more_than_the_margin_is_slower_and_an_operation_must_be_on_both_sides() {
        let expected = counts("a 100\nb 100\nc 100\n");
        assert_eq!(compare(&expected, &counts("a 110\nb 1\nc 100\n")), Vec::<String>::new());
        assert_eq!(compare(&expected, &counts("a 111\nb 1\nd 100\n")), ["a", "c", "d"]);
        assert!(parse("a b").is_err() && parse("a").is_err());
    }

    #[test]
    fn a_line_of_callgrind_is_read() {
        let text = "1,234,567 (12.3%)  x.rs:counts::operations::put_over [/t/counts]\n1 (0%)  counts::operations::put [x]\n";
        assert_eq!(inclusive(text, "put_over"), Some(1_234_567));
        assert_eq!(inclusive(text, "put"), Some(1));
        assert_eq!(inclusive(text, "touch"), None);
    }
}
