//! A small volume that can be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary;

/// A file system in memory, of a size of its own. Dropping it unmounts it.
#[derive(Debug)]
pub struct Volume(PathBuf);

impl Volume {
    /// Mounts one at `path`, which is created. `options` are those of tmpfs, e.g. `size=6m`.
    ///
    /// # Panics
    ///
    /// When this is not root, or it cannot be mounted.
    #[must_use]
    pub fn mount(path: &Path, options: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "a volume of its own needs root: run this suite as root"
        );
        std::fs::create_dir_all(path).expect("a directory of the test");
        run("mount", &["-t", "tmpfs", "-o", options, "mneme-test", &path.display().to_string()]);
        Self(path.to_owned())
    }

    /// Changes its options while it is in use.
    ///
    /// # Panics
    ///
    /// When they are refused.
    pub fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), &self.0.display().to_string()]);
    }

    /// Makes it nearly full: what is left is less than a commit needs.
    ///
    /// # Panics
    ///
    /// When its size cannot be read or changed.
    pub fn fill(&self) {
        let sizes = rustix::fs::statvfs(&self.0).expect("the sizes of a mounted volume");
        let used = (sizes.f_blocks - sizes.f_bfree) * sizes.f_frsize;
        self.remount(&format!("size={used}"));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a node may still have its file open when a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(binary::required(program)).args(arguments).status().expect("it runs");
    assert!(status.success(), "{program} {arguments:?}");
}
