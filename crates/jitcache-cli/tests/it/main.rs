//! The program, as people and scripts see it: on the golden entries, on sealed ones, on damaged ones and on hostile
//! ones.
//!
//! `UPDATE_SNAPSHOTS=1` writes what is printed as what is expected.

#![cfg(all(any(target_os = "linux", windows), target_arch = "x86_64"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod any_file;
mod changing;
mod each;
mod hostile;
mod kit;
#[cfg(unix)]
mod objdump;
mod reading;
mod terminal;
