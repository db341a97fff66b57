//! `doctor`: whether a cache can work in a directory, and on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jitcache::{Arch, Cache, Error, Identity, Key, Target};
use serde_json::json;

use crate::Outcome;
use crate::arguments::Doctor;
use crate::entries::real;
use crate::out::{Failure, Out, Paint};
use crate::table::{Cell, Column};
use crate::text;

/// One thing that was looked at.
struct Check {
    what: &'static str,
    found: String,
    verdict: Verdict,
    remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Odd,
    Bad,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Odd => "odd",
            Self::Bad => "bad",
        }
    }

    const fn paint(self) -> Paint {
        match self {
            Self::Fine => Paint::Good,
            Self::Odd => Paint::Odd,
            Self::Bad => Paint::Bad,
        }
    }
}

impl Check {
    fn fine(what: &'static str, found: String) -> Self {
        Self { what, found, verdict: Verdict::Fine, remedy: String::new() }
    }

    fn wrong(what: &'static str, found: String, verdict: Verdict, remedy: &str) -> Self {
        Self { what, found, verdict, remedy: remedy.to_owned() }
    }
}

pub(crate) fn run(doctor: &Doctor, out: &mut Out) -> Result<Outcome, Failure> {
    let mut checks = directory(&doctor.dir);
    checks.push(code());
    checks.extend(huge_pages());
    checks.extend(mappings());
    let is_bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    if out.is_json {
        let mut members = checks.iter().map(|check| {
            json!({
                "check": check.what,
                "found": check.found,
                "verdict": check.verdict.name(),
                "remedy": Some(&check.remedy).filter(|remedy| !remedy.is_empty()),
            })
        });
        out.json_lists(&[], &mut [("checks", &mut members)])?;
    } else {
        let cells = checks.iter().map(|check| {
            let verdict = Cell::new(check.verdict.name(), check.verdict.paint());
            [check.what.into(), verdict, check.found.clone().into()]
        });
        out.table(["check", "verdict", "found"].map(Column::Left), cells)?;
        let remedies = checks.iter().filter(|check| !check.remedy.is_empty());
        if remedies.clone().next().is_some() {
            out.line("")?;
            out.record(remedies.map(|check| (check.what, check.remedy.clone().into())))?;
        }
    }
    Ok(Outcome::unsound_if(is_bad))
}

fn directory(path: &Path) -> Vec<Check> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let found = format!("{} is no directory", path.display());
            return vec![Check::wrong("directory", found, Verdict::Bad, "Name the root of a cache.")];
        }
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            let remedy = "An engine makes it if it may write to the directory above; nothing was made.";
            return vec![Check::wrong("directory", found, Verdict::Bad, remedy)];
        }
    };
    let real = real(path).unwrap_or_else(|_| path.to_owned());
    let mut checks = vec![Check::fine("directory", real.display().to_string())];
    checks.extend(owner(&real, &metadata));
    checks.extend(file_system(&real));
    checks.push(clock(&real));
    checks
}

#[cfg(unix)]
fn owner(path: &Path, metadata: &fs::Metadata) -> Vec<Check> {
    use std::os::unix::fs::MetadataExt;

    use jitcache::Store;
    use rustix::fs::{Access, access};

    let user = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let found = format!("user {owner}, mode {mode:04o}; this is user {user}");
    // What a store says of the directories that it trusts; one that is read only makes nothing.
    let trusted = Identity::new("doctor", *b"DOCTOR", "1")
        .and_then(|identity| Store::options(identity).read_only().open(path.join("doctor")));
    let owner = match trusted {
        Err(error @ Error::Untrusted { .. }) => {
            Check::wrong("owner and mode", error.to_string(), Verdict::Bad, error.explain())
        }
        Err(error) => Check::wrong("owner and mode", error.to_string(), Verdict::Odd, error.explain()),
        Ok(_) => Check::fine("owner and mode", found),
    };
    let writable = match access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Check::fine("permission", "entries can be read and written".into()),
        Err(error) => {
            let found = format!("entries cannot be written: {error}");
            Check::wrong(
                "permission",
                found,
                Verdict::Odd,
                "Open the store read-only, or give this user the right to write.",
            )
        }
    };
    vec![owner, writable]
}

#[cfg(not(unix))]
fn owner(_: &Path, _: &fs::Metadata) -> Vec<Check> {
    Vec::new()
}

/// Tells the file system that a path lies in, where the system lists them.
fn file_system(path: &Path) -> Option<Check> {
    let list = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = list.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let at = PathBuf::from(unescaped(front.split(' ').nth(4)?));
        path.starts_with(&at).then(|| (at, back.split(' ').next().unwrap_or_default().to_owned()))
    });
    // The last of those that are on the same directory covers the others.
    let (at, kind) = mounts.max_by_key(|(at, _)| at.components().count())?;
    let found = format!("{kind}, mounted on {}", at.display());
    let is_network = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "lustre", "gfs2", "ocfs2"]
        .contains(&&kind[..])
        || kind.starts_with("fuse.");
    let remedy =
        "Entries are read instead of mapped there, and processes do not wait for each other: give a local directory.";
    Some(if is_network {
        Check::wrong("file system", found, Verdict::Odd, remedy)
    } else {
        Check::fine("file system", found)
    })
}

/// Returns a path as it is, of which the system's list has blanks and the like as octal numbers.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
}

/// Tries to make code executable, in memory.
fn code() -> Check {
    // A function that returns.
    let code: &[u8] = match Arch::host() {
        Arch::Amd64 | Arch::X86 => &[0xc3],
        Arch::Arm64 => &[0xc0, 0x03, 0x5f, 0xd6],
        _ => &[0; 4],
    };
    let made = Identity::new("doctor", *b"DOCTOR", "1").and_then(|identity| {
        let key = Key::of(&identity).source(b"doctor").finish();
        Cache::in_memory(identity).get_or_compile(&key, |entry| {
            entry.code(code).function(0);
            Ok::<(), Error>(())
        })
    });
    match made {
        Ok(_) => Check::fine("executable memory", format!("code can be made executable on {}", Target::host())),
        Err(error) => Check::wrong("executable memory", error.to_string(), Verdict::Bad, error.explain()),
    }
}

/// Looks for what was written in the future, as clocks go wrong: it counts as used long after everything else.
fn clock(path: &Path) -> Check {
    /// What the clocks of two machines may differ by.
    const MOST: Duration = Duration::from_secs(60 * 60);
    let directories = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let ahead = directories.chain([path.to_owned()]).filter_map(|path| {
        let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok()?;
        modified.duration_since(SystemTime::now()).ok()
    });
    match ahead.max().filter(|ahead| *ahead > MOST) {
        Some(ahead) => {
            let found = format!("something there was written {} in the future", text::age(ahead));
            let remedy = "Set the clock of this machine, or of that which wrote it: entries go by their age.";
            Check::wrong("clock", found, Verdict::Odd, remedy)
        }
        None => Check::fine("clock", "nothing there was written in the future".into()),
    }
}

/// Tells whether large code can lie in large pages, where the system says so.
fn huge_pages() -> Option<Check> {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let modes = fs::read_to_string(path).ok()?;
    let (_, rest) = modes.split_once('[')?;
    let mode = rest.split(']').next()?.to_owned();
    let remedy = "Write madvise to /sys/kernel/mm/transparent_hugepage/enabled: large code runs faster in large pages.";
    Some(if mode == "never" {
        Check::wrong("huge pages", mode, Verdict::Odd, remedy)
    } else {
        Check::fine("huge pages", mode)
    })
}

/// Compares the number of mappings that a process may have with what the system has by itself.
fn mappings() -> Option<Check> {
    const USUAL: u64 = 65530;
    let most: u64 = fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()?;
    let remedy =
        "Raise vm.max_map_count: large modules have mappings of their own, and take half of what there may be at most.";
    Some(if most < USUAL {
        Check::wrong("vm.max_map_count", most.to_string(), Verdict::Odd, remedy)
    } else {
        Check::fine("vm.max_map_count", most.to_string())
    })
}
