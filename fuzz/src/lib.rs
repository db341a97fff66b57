//! What the fuzz targets share with the tests.

#![allow(dead_code, reason = "what the tests use and the targets do not")]

#[path = "../../tests/it/generate.rs"]
mod generate;
#[path = "../../tests/it/naive.rs"]
mod naive;
#[path = "../../tests/it/oracle.rs"]
mod oracle;
#[path = "../../tests/it/scratch.rs"]
mod scratch;
#[path = "../../tests/it/targets.rs"]
pub mod targets;
