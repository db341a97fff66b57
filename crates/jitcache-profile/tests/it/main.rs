//! What profilers and debuggers are told is what the modules hold, as readers see it that are not ours.

#![cfg(all(unix, not(target_vendor = "apple")))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]
#![allow(
    unsafe_code,
    reason = "the test forks, calls loaded code, and reads what GDB reads; every block carries its proof"
)]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod debugger;
mod gdb;
#[cfg(target_os = "linux")]
mod jitdump;
mod kit;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod perf;
#[cfg(target_os = "linux")]
mod perf_map;
