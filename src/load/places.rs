//! Where the tables of an entry lie in its file, and whether its source map was found sound.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::entry::{Entry, SourceMapDigest};
use crate::error::Error;
use crate::format::Body;
use crate::words::Revision;

/// Where in a file the tables of its entry lie, in bytes.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) function_offsets: Range<u64>,
    pub(super) source_map: Option<Rows>,
    /// How many try tables there are, where, and how they are laid out.
    pub(super) try_tables: Option<(u32, Range<u64>, Revision)>,
    pub(super) sections: Option<Range<u64>>,
}

impl Places {
    pub(super) fn of(entry: &Entry<'_>, digest: Option<SourceMapDigest>) -> Self {
        let Body { function_offsets, source_map, catch_clauses, .. } = &entry.body;
        Self {
            function_offsets: function_offsets.run().range(),
            source_map: source_map.as_ref().map(|map| Rows::new(map.rows.run().range(), digest)),
            try_tables: catch_clauses
                .as_ref()
                .map(|clauses| (clauses.try_table_count, clauses.try_tables.range(), entry.revision)),
            sections: entry.sealed.as_ref().map(|sealed| sealed.seal.sections.range()),
        }
    }
}

/// The rows of a source map, which are checked when they are first used: there may be more of them than code.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) at: Range<u64>,
    /// What they have to be; `None` if nobody can tell, or the caller vouched for it.
    digest: Option<SourceMapDigest>,
    /// Whether they were found sound: no lock, because they may be looked up in a signal handler.
    state: AtomicU8,
}

impl Rows {
    const UNCHECKED: u8 = 0;
    const SOUND: u8 = 1;
    const DAMAGED: u8 = 2;

    pub(super) const fn new(at: Range<u64>, digest: Option<SourceMapDigest>) -> Self {
        Self { at, digest, state: AtomicU8::new(Self::UNCHECKED) }
    }

    /// Returns whether `rows` are what they have to be.
    pub(super) fn are_sound(&self, rows: &[u8]) -> bool {
        match self.state.load(Ordering::Relaxed) {
            Self::UNCHECKED => self.check(rows).is_ok(),
            state => state == Self::SOUND,
        }
    }

    pub(super) fn check(&self, rows: &[u8]) -> Result<(), Error> {
        let checked = self.digest.as_ref().map_or(Ok(()), |digest| digest.check(rows));
        self.state.store(if checked.is_ok() { Self::SOUND } else { Self::DAMAGED }, Ordering::Relaxed);
        checked
    }
}
