//! What the bytes of an entry are for.

use std::ops::Range;

use jitcache::error::Field;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    Functions,
    SourceMap,
    TryTables,
    Sections,
    /// Header, lengths and checksums, and the seal.
    Frame,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Code, Self::Functions, Self::SourceMap, Self::TryTables, Self::Sections, Self::Frame];

    pub(crate) const fn of(field: Field) -> Self {
        match field {
            Field::Code => Self::Code,
            Field::FunctionOffsets => Self::Functions,
            Field::SourceMap => Self::SourceMap,
            Field::CatchClauses => Self::TryTables,
            Field::Section => Self::Sections,
            _ => Self::Frame,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Functions => "function offsets",
            Self::SourceMap => "source map",
            Self::TryTables => "try tables",
            Self::Sections => "sections",
            Self::Frame => "header and seal",
        }
    }
}

/// Returns how many bytes the fields of each kind take.
pub(crate) fn lengths(fields: &[(Field, Range<u64>)]) -> [u64; 6] {
    Kind::ALL.map(|kind| {
        let of_kind = fields.iter().filter(|(field, _)| Kind::of(*field) == kind);
        of_kind.map(|(_, range)| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add)
    })
}
