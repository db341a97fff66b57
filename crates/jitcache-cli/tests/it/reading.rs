//! Commands that read change nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kit::{damaged, files, jitcache};

/// Every command that only reads, with a key that is there where one is needed.
fn reading(dir: &str, key: &str) -> Vec<Vec<String>> {
    let commands = [
        &["list", dir][..],
        &["list", dir, "--sort", "size", "--reverse", "--state", "whole"],
        &["show", dir, key],
        &["verify", dir, "--all"],
        &["verify", dir, key],
        &["disasm", dir, key],
        &["why", dir, key],
        &["stats", dir, "--budget", "1K"],
        &["prune", dir, "--older-than", "0s", "--unsound", "--dry-run"],
        &["copy", dir, "/nowhere", "--dry-run"],
        &["doctor", dir],
    ];
    commands.iter().map(|command| command.iter().map(|word| (*word).to_owned()).collect()).collect()
}

#[test]
fn a_command_that_reads_changes_nothing() {
    let scratch = damaged();
    let dir = scratch.path().to_str().unwrap();
    let look = || {
        let mut all = files(scratch.path());
        all.push(scratch.path().to_owned());
        let look = |path: PathBuf| {
            let metadata = fs::symlink_metadata(&path).unwrap();
            (path, metadata.len(), metadata.modified().unwrap(), changed(&metadata))
        };
        all.into_iter().map(look).collect::<Vec<_>>()
    };
    let before = look();
    for command in reading(dir, "01") {
        assert_ne!(jitcache(&command).status.code(), Some(2), "{command:?}");
        assert_eq!(look(), before, "{command:?}");
    }
    let missing = format!("{dir}/missing");
    for command in reading(&missing, "01") {
        assert_ne!(jitcache(&command).status.code(), Some(0), "{command:?}");
    }
    assert!(!Path::new(&missing).exists());
}

/// Returns what else tells that a file was changed.
#[cfg(unix)]
fn changed(metadata: &fs::Metadata) -> (i64, u32) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime_nsec(), metadata.mode())
}

#[cfg(windows)]
fn changed(metadata: &fs::Metadata) -> (u64, u32) {
    use std::os::windows::fs::MetadataExt;
    (metadata.creation_time(), metadata.file_attributes())
}

#[test]
#[cfg(unix)] // by strace
fn a_command_that_reads_opens_nothing_for_writing() {
    use std::process::Command;

    use jitcache::Sealing;
    use jitcache_testkit::skip::skip;

    use crate::kit::{engine, golden, sealed};

    if Command::new("strace").arg("-V").output().is_err() {
        return skip("a_command_that_reads_opens_nothing_for_writing", "there is no strace");
    }
    let scratch = golden();
    let dir = scratch.path().join("wazero-v1.12.0-amd64-linux");
    let log = scratch.path().join("log");
    let sealed = sealed();
    let engine = sealed.path().join(engine(Sealing::Checksum).directory_name());
    let packing = ["pack", engine.to_str().unwrap(), "/nowhere/pack", "--dry-run"].map(str::to_owned).to_vec();
    for command in reading(dir.to_str().unwrap(), "5923").into_iter().chain([packing]) {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=file,desc", "-o"])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_jitcache"))
            .args(&command)
            .output()
            .unwrap();
        let calls = fs::read_to_string(&log).unwrap_or_default();
        if !calls.contains("execve(") {
            return skip("a_command_that_reads_opens_nothing_for_writing", "strace may not trace here");
        }
        assert_eq!(strace.status.code(), Some(0), "{command:?}: {}", String::from_utf8_lossy(&strace.stderr));
        assert!(calls.contains("O_RDONLY"), "{command:?}");
        for call in calls.lines() {
            for writes in [
                "O_WRONLY",
                "O_RDWR",
                "O_CREAT",
                "O_TRUNC",
                "mkdir",
                "unlink",
                "rename",
                "utime",
                "chmod",
                "chown",
                "truncate(",
                "link(",
                "mknod",
            ] {
                // Code is made executable by way of a file that is in memory alone.
                assert!(
                    !call.contains(writes) || call.contains("readlink(") || call.contains("ftruncate("),
                    "{command:?}: {call}"
                );
            }
        }
    }
}
