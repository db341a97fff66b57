//! Sealing an entry: what is written behind its body.

use std::io::{self, Write};
use std::ops::Range;

use super::digest::Digest;
use super::seal::Sealed;
use super::view::Entry;
use crate::format::{self, Bytes, Footer, Run, Seal};
use crate::words::size;

/// Seals an entry: counts its bytes, and makes the digest of all of them.
pub(super) fn sealed<'a>(entry: &Entry<'a>, mut seal: Seal<'a>, digest_kind: u8) -> Sealed<'a> {
    let mac_key = entry.mac_key.as_ref();
    let mut file = Sealing { digest: Digest::new(mac_key), length: 0, rows: entry.source_map_rows() };
    // A digest cannot fail to be written to.
    let written = entry.write(&mut file);
    let at = file.length;
    seal.build_id = Run::new_at(at.saturating_add(Seal::BUILD_ID), seal.build_id.bytes());
    seal.sections = Run::new_at(seal.build_id.range().end, seal.sections.bytes());
    let written = written.and_then(|()| format::write(&seal, &mut file));
    let file_length = file.length.saturating_add(Footer::SIZE);
    let rows = entry.body.source_map.as_ref().map_or(&[][..], |map| map.rows.run().bytes());
    let mut source_map_digest = Digest::of_source_map(mac_key);
    source_map_digest.add(rows);
    let mut footer = Footer {
        seal_length: file_length.saturating_sub(at),
        file_length,
        digest_kind,
        source_map_digest: Bytes(source_map_digest.finish().0),
        digest: Bytes([0; 32]),
        magic: Footer::MAGIC,
    };
    let mut tail = Vec::new();
    let written = written.and_then(|()| format::write(&footer, &mut tail));
    debug_assert!(written.is_ok(), "{written:?}");
    let covered = Footer::SIZE.saturating_sub(Footer::DIGEST_AND_MAGIC);
    file.digest.add(Run::new(&tail).part(&(0..covered)).bytes());
    footer.digest = Bytes(file.digest.finish().0);
    Sealed { seal, footer, at }
}

/// Counts the bytes of a file that is written, and makes their digest.
struct Sealing {
    digest: Digest,
    length: u64,
    /// The rows of the source map, which the digest leaves out.
    rows: Range<u64>,
}

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.length.saturating_add(size(bytes));
        let part = |range: Range<u64>| {
            let within = |at: u64| at.clamp(self.length, end).saturating_sub(self.length);
            Run::new(bytes).part(&(within(range.start)..within(range.end))).bytes()
        };
        let (before, behind) = (part(0..self.rows.start), part(self.rows.end..u64::MAX));
        self.digest.add(before);
        self.digest.add(behind);
        self.length = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
