//! Failing disks and dying processes, through real system calls.
//!
//! The tests start this very binary again as children, under `strace`, which makes system calls fail or kills the child
//! in front of one; in small, odd or crashing file systems; or many at once. What needs root or a tool that is not
//! there says so in a line and passes. File systems are mounted only if `JITCACHE_MOUNT=1` asks for it.
//! `JITCACHE_LONG=1` runs everything for longer; `-- --show-output` shows the figures.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails, and tests compute with numbers they have chosen"
)]
#![allow(unsafe_code, reason = "limits, markers and crashes are system calls; every block carries its proof")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod adversary;
mod child;
mod content;
mod errnos;
mod flight;
mod fork;
mod hammer;
mod kill;
#[path = "../kit/mod.rs"]
mod kit;
mod limits;
mod memory;
mod model;
mod mount;
mod odd;
mod powercut;
mod soak;
mod stopped;
mod strace;

use kit::skip::skip;
use kit::{maps, random, scratch};

/// Whether to run for long.
fn long() -> bool {
    std::env::var_os("JITCACHE_LONG").is_some()
}
