//! What must be installed, named before anything starts.

use std::process::{Command, Stdio};

use mneme_tests::binary;

/// Programs and the Debian package of each.
const PROGRAMS: [(&str, &str); 8] = [
    ("setpriv", "util-linux"),
    ("redis-server", "redis-server"),
    ("etcd", "etcd-server"),
    ("erl", "erlang-base"),
    ("erlc", "erlang-base"),
    ("epmd", "erlang-base"),
    ("nginx", "nginx-light"),
    ("go", ""),
];
/// Debian has older ones.
const GO: &str = "Go 1.25 or later from https://go.dev/dl";

/// How to install what is missing; nothing when all is there.
pub(crate) fn missing() -> Option<String> {
    let mut missing: Vec<&str> = Vec::new();
    for (program, package) in PROGRAMS {
        if binary::system(program).is_none() {
            missing.push(package);
        }
    }
    if binary::system("erl").is_none_or(|_| !has_mnesia()) {
        missing.push("erlang-mnesia");
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return None;
    }
    let lacks_go = missing.contains(&"");
    missing.retain(|package| !package.is_empty());
    let mut ways = Vec::new();
    if !missing.is_empty() {
        ways.push(format!("apt-get install --no-install-recommends {}", missing.join(" ")));
    }
    if lacks_go {
        ways.push(GO.to_owned());
    }
    Some(ways.join("; "))
}

fn has_mnesia() -> bool {
    let look = "case code:lib_dir(mnesia) of {error, _} -> halt(1); _ -> halt(0) end.";
    let erl = Command::new("erl")
        .args(["-noshell", "-eval", look])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    erl.is_ok_and(|status| status.success())
}
