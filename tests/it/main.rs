//! The integration tests, one binary.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails, and tests compute with numbers they have chosen"
)]
#![allow(unsafe_code, reason = "loaded code is called, and files are mapped; every block carries its proof")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod behind;
mod cache;
mod damage;
mod flight;
mod golden;
mod hook;
mod hostile;
mod house;
mod identity;
#[path = "../kit/mod.rs"]
mod kit;
mod layouts;
mod left;
mod linked;
mod loader;
mod machine;
#[cfg(all(feature = "object", unix))]
mod object;
mod pack;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod planted;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod processor;
mod properties;
mod recipe;
mod replay;
mod room;
mod seal;
#[cfg(unix)]
mod shared;
mod specification;
mod store;
mod tally;
mod threads;
#[cfg(unix)]
mod trust;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod wazero;

#[cfg(target_os = "linux")]
use kit::maps;
use kit::{generate, mend, naive, oracle, scratch, skip, targets};
