//! What holds for every file of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a Rust file may have. Twice what we aim at: past this a file has more than one subject.
const LINES_MAX: usize = 800;

fn repository() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .expect("the directory above this crate")
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .output()
        .unwrap_or_else(|error| panic!("failed to run {program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The Rust files that git tracks and that have not been deleted since.
fn tracked_rust_files() -> BTreeSet<PathBuf> {
    let names = run("git", &["ls-files", "-z", "*.rs"]);
    let names = String::from_utf8(names).expect("names in UTF-8");
    let files: BTreeSet<PathBuf> = names
        .split_terminator('\0')
        .map(|name| repository().join(name))
        .filter(|file| file.exists())
        .collect();
    assert!(!files.is_empty(), "git tracks no Rust file in {}", repository().display());
    files
}

/// The file of every crate root: libraries, binaries, tests, build scripts; of the fuzzer's workspace too.
fn crate_roots() -> Vec<PathBuf> {
    ["Cargo.toml", "fuzz/Cargo.toml"].into_iter().flat_map(roots_in_workspace).collect()
}

fn roots_in_workspace(manifest: &str) -> Vec<PathBuf> {
    let arguments =
        ["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest];
    let metadata = run(env!("CARGO"), &arguments);
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON from cargo");
    let targets = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| package["targets"].as_array());
    targets.flatten().map(|target| target["src_path"].as_str().expect("a path").into()).collect()
}

/// Adds `file` and all files of the modules it declares, `directory` being where the files of its modules are.
fn add_modules(file: &Path, directory: &Path, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("failed to read {}: {error}", file.display()));
    for name in text.lines().filter_map(declared_module) {
        let module = directory.join(format!("{name}.rs"));
        if module.is_file() {
            add_modules(&module, &directory.join(name), reached);
        }
    }
}

/// `x` of `mod x;`, however visible.
fn declared_module(line: &str) -> Option<&str> {
    let line = line.trim().strip_suffix(';')?;
    let (visibility, name) = line.rsplit_once("mod ")?;
    let visibility = visibility.trim_end();
    (visibility.is_empty() || visibility.starts_with("pub")).then_some(name)
}

#[test]
fn every_source_file_is_part_of_a_crate() {
    let mut reached = BTreeSet::new();
    for root in crate_roots() {
        let directory = root.parent().expect("the directory of a file").to_owned();
        add_modules(&root, &directory, &mut reached);
    }
    let unreached: Vec<_> = tracked_rust_files().into_iter().filter(|file| !reached.contains(file)).collect();
    assert!(unreached.is_empty(), "no crate compiles {unreached:#?}");
}

#[test]
fn no_source_file_is_too_long() {
    let lines = |file: &Path| fs::read_to_string(file).expect("a tracked file in UTF-8").lines().count();
    let long: Vec<_> = tracked_rust_files().into_iter().filter(|file| lines(file) > LINES_MAX).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:#?}");
}

#[test]
fn declarations_of_modules_are_recognised() {
    assert_eq!(declared_module("mod a;"), Some("a"));
    assert_eq!(declared_module("    pub(crate) mod b_c;"), Some("b_c"));
    assert_eq!(declared_module("mod inline {"), None);
    assert_eq!(declared_module("// no mod a;"), None);
}
