//! Where a run takes place.

use std::path::Path;
use std::process::Command;

use mneme_tests::binary;

use crate::figures::Machine;

/// `TMPFS_MAGIC` of the kernel.
const TMPFS: u64 = 0x0102_1994;

/// Looks at this machine and asks the programs for their versions.
pub(crate) async fn machine() -> anyhow::Result<Machine> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kibibytes: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    Ok(Machine {
        processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
        cores: std::thread::available_parallelism()?.get(),
        memory_gib: (kibibytes + (1 << 19)) >> 20,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        file_system: file_system(&std::env::temp_dir()),
        versions: versions().await,
    })
}

/// Refuses a directory for temporary files that is in memory: an fsync there costs nothing.
pub(crate) fn refuse_memory() -> anyhow::Result<()> {
    let directory = std::env::temp_dir();
    let kind = rustix::fs::statfs(&directory)?.f_type;
    let is_memory = u64::try_from(kind).is_ok_and(|kind| kind == TMPFS);
    anyhow::ensure!(!is_memory, "{} is in memory: set TMPDIR to a directory on a disk", directory.display());
    Ok(())
}

/// Kind of the file system that holds `directory`: of the mounts above it, the nearest.
fn file_system(directory: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

async fn versions() -> Vec<String> {
    let erlang = "io:format(\"Erlang/OTP ~s\", [erlang:system_info(otp_release)]), halt().";
    let node = binary::mneme_node().display().to_string();
    let asked: [(&str, &[&str]); 5] = [
        (&node, &["--version"]),
        ("redis-server", &["--version"]),
        ("etcd", &["--version"]),
        ("erl", &["-noshell", "-eval", erlang]),
        ("nginx", &["-v"]),
    ];
    let mut versions: Vec<String> =
        asked.into_iter().filter_map(|(name, arguments)| version(name, arguments)).collect();
    if let Ok(sqlite) = crate::parts::sqlite::library_version().await {
        versions.push(format!("SQLite {sqlite}"));
    }
    versions
}

/// The first line that a program says of itself, without how it was built.
fn version(name: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(binary::system(name).unwrap_or_else(|| name.into())).args(arguments).output().ok()?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said).into_owned();
    let line = said.lines().next()?.trim_start_matches("nginx version: ");
    Some(line.split(" sha=").next()?.trim().to_owned())
}
