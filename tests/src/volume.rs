//! A small volume that can be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary;

/// Sizes that are tried until one is not exceeded before it is set.
const SIZES_MAX: usize = 100;

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
        let status = remounting(&self.0, options).status().expect("it runs");
        assert!(status.success(), "mount refuses {options}");
    }

    /// Makes it nearly full: what is left is less than a commit needs.
    ///
    /// # Panics
    ///
    /// When its size cannot be read or changed.
    pub fn fill(&self) {
        let used = || {
            let sizes = rustix::fs::statvfs(&self.0).expect("the sizes of a mounted volume");
            (sizes.f_blocks - sizes.f_bfree) * sizes.f_frsize
        };
        // A size is refused that is exceeded by the time it is set: then it is already a larger one.
        let is_set = (0..SIZES_MAX).any(|_| {
            let size = used();
            let status = remounting(&self.0, &format!("size={size}")).status().expect("it runs");
            assert!(status.success() || used() > size, "the volume cannot be made smaller");
            status.success()
        });
        assert!(is_set, "the volume fills faster than its size can be set");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a node may still have its file open when a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn remounting(path: &Path, options: &str) -> Command {
    let mut command = Command::new(binary::required("mount"));
    command.arg("-o").arg(format!("remount,{options}")).arg(path);
    command
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(binary::required(program)).args(arguments).status().expect("it runs");
    assert!(status.success(), "{program} {arguments:?}");
}
