//! The tests of the format alone, which run without the feature `cache`, in WebAssembly among others: those of the
//! integration tests that load, store and run nothing.

#![cfg(not(feature = "cache"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a panic is how a test fails, and what the tests share is more than these need"
)]

#[path = "kit/generate.rs"]
mod generate;
#[path = "it/golden.rs"]
mod golden;
#[path = "it/machine.rs"]
mod machine;
#[path = "kit/mend.rs"]
mod mend;
#[path = "kit/naive.rs"]
mod naive;
#[path = "kit/oracle.rs"]
mod oracle;
#[path = "it/properties.rs"]
mod properties;
#[path = "it/specification.rs"]
mod specification;
