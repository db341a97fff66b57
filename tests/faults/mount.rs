//! File systems of a test's own, which are mounted if `JITCACHE_MOUNT` asks for that.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a tool and says whether it did its work.
pub fn tool(name: &str, arguments: &[&str]) -> bool {
    let status = Command::new(name).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether the machine's list of mounted file systems may be changed.
pub fn wanted() -> bool {
    std::env::var_os("JITCACHE_MOUNT").is_some()
}

/// A file system that is mounted, and no longer when this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(arguments: &[&str], at: &Path) -> Option<Self> {
        let at = at.to_str().unwrap();
        (wanted() && tool("mount", &[arguments, &[at]].concat())).then(|| Self(at.into()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.0.to_str().unwrap();
        // A process that was killed may take a moment to let go of it.
        let unmounted = (0..50).any(|_| {
            tool("umount", &[at]) || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                false
            }
        });
        assert!(unmounted || std::thread::panicking(), "{at} stays mounted");
    }
}
