//! What holds for whatever bytes reach a parser.
//!
//! One module a parser, one function in it: it takes any bytes, reads them as a stranger's, and panics when something
//! does not hold. That a parser does not panic is the least of it: what it takes is what the contract allows, no more
//! and no less; what it took reads back as it was written; what it refuses it does not repeat.
//!
//! The same functions are run by fuzzing (`fuzz/` of the repository) and, by the test here, on what fuzzing has kept.

pub mod batch;
pub mod config;
pub mod dns;
pub mod hosts;
pub mod key;
pub mod pattern;
pub mod peer;
pub mod query;
pub mod replica;
pub mod rows;

/// Stands in inputs for what no answer may repeat.
pub const SECRET: &str = "s3cret";

/// A parser's name, as its corpus and its fuzzing target have it, and what holds for it.
pub type Parser = (&'static str, fn(&[u8]));

/// Every parser.
pub const PARSERS: [Parser; 10] = [
    ("batch", batch::check),
    ("config", config::check),
    ("dns", dns::check),
    ("hosts", hosts::check),
    ("key", key::check),
    ("pattern", pattern::check),
    ("peer", peer::check),
    ("query", query::check),
    ("replica", replica::check),
    ("rows", rows::check),
];

/// Checks that an answer repeats nothing that may be secret.
#[track_caller]
fn assert_tells_nothing(answer: &[u8]) {
    let is_told = answer.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(!is_told, "{}", String::from_utf8_lossy(answer));
    assert!(answer.len() < 1_024, "an answer of {} bytes", answer.len());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Bytes of a corpus, at most: it is read by people and by every run of the tests.
    const CORPUS_BYTES_MAX: usize = 64 << 10;

    #[test]
    fn what_fuzzing_has_kept_holds() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, check) in PARSERS {
            let corpus = std::fs::read_dir(corpora.join(name)).expect("a corpus for every parser");
            let (mut files, mut bytes) = (0, 0);
            for file in corpus {
                let path = file.expect("an entry of a directory").path();
                let input = std::fs::read(&path).expect("a file of the corpus");
                bytes += input.len();
                files += 1;
                // A panic alone would not say which input it was.
                let checked = std::panic::catch_unwind(|| check(&input));
                assert!(checked.is_ok(), "{} does not hold for {}", name, path.display());
            }
            assert!(files >= 10, "the corpus of {name} has {files} files");
            assert!(bytes <= CORPUS_BYTES_MAX, "the corpus of {name} has {bytes} bytes");
        }
        let corpora = std::fs::read_dir(corpora).expect("the corpora").count();
        assert_eq!(corpora, PARSERS.len(), "a corpus that belongs to no parser");
    }
}
