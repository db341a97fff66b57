//! The tag by which programs that copy and clean know a directory of caches.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::modes::{self, Modes};
use crate::memory::most_bytes_of_a_file;
use crate::words::size;

/// What every tag begins with, by its specification.
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by jitcache.
# For information about cache directory tags, see https://bford.info/cachedir/
";

/// Tags a directory that was just made, unless somebody else has, or this process may not write that much. Without a tag
/// it is a cache all the same.
pub(crate) fn tag(directory: &Path, modes: Option<Modes>) {
    if size(TAG) > most_bytes_of_a_file() {
        return;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if let Ok(mut file) = options.open(directory.join("CACHEDIR.TAG")) {
        let _ = modes::set_of_file(&file, modes);
        let _ = file.write_all(TAG);
    }
}
