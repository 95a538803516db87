//! Where the programs under test are.

use std::path::PathBuf;

/// The `mneme-node` under test: `MNEME_NODE_BIN`, else the one next to the running test executable.
#[must_use]
pub fn mneme_node() -> PathBuf {
    built("mneme-node", "MNEME_NODE_BIN")
}

/// The example application under test: `MNEME_LOGIN_BIN`, else the one next to the running test executable.
#[must_use]
pub fn mneme_login() -> PathBuf {
    built("mneme-login", "MNEME_LOGIN_BIN")
}

/// Finds a binary of this workspace. Cargo tells a test only of the binaries of its own package, so the path is taken
/// from where Cargo puts both: the test in `target/PROFILE/deps`, the binary in `target/PROFILE`.
fn built(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the path of the running test");
    let path = test
        .ancestors()
        .skip(1)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("no {name} near {}: build it (tests/run does) or set {variable}", test.display())
        });
    std::path::absolute(path).expect("an absolute path of a file that was just found")
}

/// Finds a program of the system, as a shell would, but with the directories of administrators' tools added, which
/// the search path of a plain user often lacks.
#[must_use]
pub fn system(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A program of the system that a test cannot do without.
#[must_use]
pub fn required(name: &str) -> PathBuf {
    system(name).unwrap_or_else(|| panic!("this test needs `{name}`, which is not installed"))
}
