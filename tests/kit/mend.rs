//! Damaged entries whose lengths and digests are made to fit again.

use std::ops::Range;

use jitcache::{Entry, Identity, Sealing};

use super::generate::MAC_KEY;

/// Where the rows of the source map lie in an entry that can be parsed.
pub fn rows(file: &[u8], identity: &Identity) -> Range<usize> {
    let entry = Entry::parse(file, identity).unwrap();
    let code_end = entry.code_range().end as usize;
    // Behind the checksum, the flag and the length.
    entry.source_map().map_or(code_end..code_end, |map| code_end + 13..code_end + 13 + map.len() * 16)
}

/// What the digest of a file covers.
pub fn covered(file: &[u8], rows: &Range<usize>) -> Vec<u8> {
    [&file[..rows.start], &file[rows.end..file.len() - 40]].concat()
}

/// Makes length, checksum and digests fit again what the fuzzer has changed.
pub fn repair(file: &mut [u8], identity: &Identity) {
    let length = file.len();
    let sealed = *identity.sealing() != Sealing::Plain && length > 89;
    if sealed {
        file[length - 81..length - 73].copy_from_slice(&(length as u64).to_le_bytes());
        file[length - 8..].copy_from_slice(b"JITSEAL1");
    }
    let mut found = 0..0;
    if let Ok(entry) = Entry::parse(file, identity) {
        let checksum = crc32c::crc32c(entry.code()).to_le_bytes();
        let at = entry.code_range().end as usize;
        found = rows(file, identity);
        file[at..at + 4].copy_from_slice(&checksum);
    }
    if sealed {
        let key = if matches!(identity.sealing(), Sealing::Mac(_)) { MAC_KEY } else { [0; 32] };
        let of_rows = super::naive::mac(b"source map", &key, &file[found.clone()]);
        file[length - 72..length - 40].copy_from_slice(&of_rows);
        let of_file = super::naive::mac(b"file", &key, &covered(file, &found));
        file[length - 40..length - 8].copy_from_slice(&of_file);
    }
}
