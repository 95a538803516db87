//! The hosts file: one host a line, `#` comments, and lines of `.hosts.erlang` (`'host.example.com'.`).

use std::collections::BTreeSet;
use std::path::Path;

use super::{Answer, parse_address};

/// Bytes of the file, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the file says. Lines that make no sense are reported, each with its number; the others are used.
pub fn parse(text: &str) -> Answer {
    let (mut addresses, mut mistakes) = (BTreeSet::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        // `%` begins a comment in Erlang's format.
        let line = line.split(['#', '%']).next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Ok(address) => {
                addresses.insert(address);
            }
            Err(error) => mistakes.push(format!("line {}: {error}", index + 1)),
        }
    }
    Answer::with_mistakes(addresses, &mistakes)
}

fn parse_line(line: &str) -> Result<String, String> {
    if let Some(quoted) = line.strip_prefix('\'') {
        let host = quoted.strip_suffix("'.").or_else(|| quoted.strip_suffix('\''));
        return parse_address(host.ok_or("a quoted host ends with a quote and a dot")?);
    }
    parse_address(line)
}

/// The file as it was when it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    text: Option<String>,
    /// Times an unchanged file has been answered with: absence is repeated until it counts.
    repeats: u32,
}

/// Reads the file; `None` when it says nothing new.
///
/// By content, not by time stamp: a mounted ConfigMap changes by a link.
pub(super) async fn read_changed(path: &Path, last: &mut Option<Seen>) -> Option<Answer> {
    let read = async {
        let length = tokio::fs::metadata(path).await?.len();
        if length > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!(
                "the file has {length} bytes, more than {FILE_BYTES_MAX}"
            )));
        }
        tokio::fs::read_to_string(path).await
    };
    let (text, answer) = match read.await {
        Ok(text) => {
            let answer = parse(&text);
            (Some(text), answer)
        }
        Err(error) => (None, Answer::failed(format!("failed to read the file: {error}"))),
    };
    let repeats = match last {
        Some(seen) if seen.text == text => seen.repeats + 1,
        _ => 0,
    };
    *last = Some(Seen { text, repeats });
    (repeats <= super::ABSENCES).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_and_comments_are_read() {
        let answer = parse(
            "# peers\n10.0.0.5:7071\n\ncache.example.com # spare\n'host.example.com'.\n% erlang\n::1\n",
        );
        let expected = ["10.0.0.5:7071", "[::1]:7071", "cache.example.com:7071", "host.example.com:7071"];
        assert_eq!(answer.addresses.iter().collect::<Vec<_>>(), expected);
        assert!(answer.is_whole && answer.error.is_none());
    }

    #[test]
    fn a_bad_line_is_reported_and_the_rest_is_used() {
        let answer = parse("good:7071\n'unfinished\nbad host\nfine\n");
        assert_eq!(answer.addresses.iter().collect::<Vec<_>>(), ["fine:7071", "good:7071"]);
        assert!(!answer.is_whole);
        let error = answer.error.expect("two bad lines");
        assert!(error.contains("line 2:") && error.contains("line 3:"), "{error}");
    }

    #[test]
    fn what_is_told_of_a_bad_file_is_short_however_bad_it_is() {
        let text = format!("{}\n", "\u{1}".repeat(5_000)).repeat(100);
        let error = parse(&text).error.expect("a hundred bad lines");
        assert!(error.len() < 4_096 && error.ends_with("; and 92 more"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("peers");
        let mut last = None;
        let missing = read_changed(&path, &mut last).await.expect("an error is news");
        assert!(missing.error.is_some() && !missing.is_whole);
        std::fs::write(&path, "a\n").expect("writable");
        assert_eq!(read_changed(&path, &mut last).await.map(|answer| answer.addresses.len()), Some(1));
        std::fs::write(&path, "a\nb\n").expect("writable");
        assert_eq!(read_changed(&path, &mut last).await.map(|answer| answer.addresses.len()), Some(2));
        for _ in 0..super::super::ABSENCES {
            assert!(read_changed(&path, &mut last).await.is_some());
        }
        assert_eq!(read_changed(&path, &mut last).await, None);
    }
}
