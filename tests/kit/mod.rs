//! What tests, fuzz targets and benchmarks share: the crate `jitcache-testkit`, and a module of the tests of the root,
//! which the package holds.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::new_without_default,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a panic is how a test fails, each test uses a part, and nobody else sees it"
)]
#![allow(unsafe_code, reason = "loaded code is called, and files are mapped; every block carries its proof")]

pub mod generate;
pub mod maps;
pub mod mend;
pub mod naive;
pub mod oracle;
pub mod random;
pub mod scratch;
pub mod skip;
pub mod targets;
