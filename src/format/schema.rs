//! Every byte of an entry, in file order. SPEC.md is its prose.
//!
//! One set of structs reads and writes. Integers are little-endian and nothing is aligned. Lengths and order are told
//! here; what the numbers may be is checked where the structs are used.

#![expect(clippy::as_conversions, reason = "the code that binrw derives is full of them; there are none beside it")]

use binrw::binrw;

use super::run::{Bytes, Run};
use super::table::Table;
use crate::error::Field;
use crate::words::Revision;

/// The part of an entry that means the same in every version of every engine.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header<'a> {
    #[br(err_context(Field::Magic))]
    pub(crate) magic: Bytes<6>,

    #[br(temp, err_context(Field::VersionLength))]
    #[bw(try_calc(u8::try_from(version.bytes().len())))]
    version_length: u8,

    #[br(args(file, Some(version_length.into())), err_context(Field::Version))]
    pub(crate) version: Run<'a>,
}

/// What follows a header whose magic and version are the expected ones.
#[binrw]
#[brw(little)]
#[br(import(file: Run<'a>, revision: Revision))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Body<'a> {
    #[br(temp, err_context(Field::FunctionCount))]
    #[bw(try_calc(u32::try_from(function_offsets.rows().len())))]
    function_count: u32,

    /// Offset of each function from the start of the code.
    #[br(args(file, function_count.into()), err_context(Field::FunctionOffsets))]
    pub(crate) function_offsets: Table<'a, 1>,

    #[br(temp, err_context(Field::CodeLength))]
    #[bw(try_calc(u64::try_from(code.bytes().len())))]
    code_length: u64,

    #[br(args(file, Some(code_length)), err_context(Field::Code))]
    pub(crate) code: Run<'a>,

    /// CRC-32C of the code alone. It is there even if there is no code.
    #[br(err_context(Field::CodeChecksum))]
    pub(crate) code_checksum: u32,

    /// 1 if a source map follows, 0 if not. Kept as it was found: [`Option`] could not tell 0 from 2.
    #[br(err_context(Field::SourceMapFlag))]
    pub(crate) source_map_flag: u8,

    #[br(if(source_map_flag == 1), args_raw = file)]
    pub(crate) source_map: Option<SourceMap<'a>>,

    #[br(if(revision != Revision::SourceMap), args_raw = file)]
    pub(crate) catch_clauses: Option<CatchClauses<'a>>,
}

/// Rows of the source offset and the code offset, ascending in the latter.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceMap<'a> {
    #[br(temp, err_context(Field::SourceMapLength))]
    #[bw(try_calc(u64::try_from(rows.rows().len())))]
    length: u64,

    #[br(args(file, length), err_context(Field::SourceMap))]
    pub(crate) rows: Table<'a, 2>,
}

/// The try tables of the module, with the catch clauses of each.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CatchClauses<'a> {
    #[br(err_context(Field::TryTableCount))]
    pub(crate) try_table_count: u32,

    /// That many [`TryTable`]s, up to the end of `file`.
    #[br(args(file, None))]
    pub(crate) try_tables: Run<'a>,
}

/// One try table: its catch clauses and, in [`Revision::Locals`], its locals.
#[binrw]
#[brw(little)]
#[br(import(file: Run<'a>, revision: Revision))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TryTable<'a> {
    #[br(if(revision == Revision::Locals))]
    pub(crate) locals: Option<TryTableLocals>,

    #[br(err_context(Field::CatchClauseCount))]
    pub(crate) clause_count: u32,

    /// That many [`CatchClause`]s.
    #[br(args(file, Some(u64::from(clause_count).saturating_mul(CatchClause::SIZE))), err_context(Field::CatchClauses))]
    pub(crate) clauses: Run<'a>,
}

/// What a try table says of the locals of its function.
#[binrw]
#[brw(little)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TryTableLocals {
    #[br(err_context(Field::LocalCount))]
    pub(crate) count: u32,

    /// 1 if they are kept where those of the try table around it are, 0 if not.
    #[br(err_context(Field::ReuseFlag))]
    pub(crate) reuse_flag: u8,
}

impl TryTableLocals {
    /// How far the flag stands behind the start of the try table, in bytes.
    pub(crate) const FLAG_AT: u64 = 4;
}

/// One clause of a try table, as WebAssembly's exception handling defines it.
#[binrw]
#[brw(little)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchClause {
    #[br(err_context(Field::CatchClauses))]
    /// The kind: 0 `catch`, 1 `catch_ref`, 2 `catch_all`, 3 `catch_all_ref`.
    pub kind: u8,
    #[br(err_context(Field::CatchClauses))]
    /// The index of the tag, 0 for the kinds that catch all.
    pub tag: u32,
}

impl CatchClause {
    /// Size of a clause in the file, in bytes.
    const SIZE: u64 = 5;

    /// The largest kind there is.
    pub(crate) const LAST_KIND: u8 = 3;
}

/// What binds an entry to its key and its machine. It follows a body with a try table count, up to the footer.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seal<'a> {
    #[br(err_context(Field::Key))]
    pub(crate) key: Bytes<32>,

    /// Number of the architecture, as [`Arch`](crate::Arch) has it.
    #[br(err_context(Field::Arch))]
    pub(crate) arch: u16,

    /// Number of the operating system, as [`Os`](crate::Os) has it.
    #[br(err_context(Field::Os))]
    pub(crate) os: u16,

    /// Features that the code needs, as [`CpuFeatures`](crate::CpuFeatures) numbers them.
    #[br(err_context(Field::CpuFeatures))]
    pub(crate) cpu_features: u128,

    #[br(temp, err_context(Field::BuildIdLength))]
    #[bw(try_calc(u8::try_from(build_id.bytes().len())))]
    build_id_length: u8,

    #[br(args(file, Some(build_id_length.into())), err_context(Field::BuildId))]
    pub(crate) build_id: Run<'a>,

    /// [`Section`]s up to the end of `file`.
    #[br(args(file, None))]
    pub(crate) sections: Run<'a>,
}

impl Seal<'_> {
    /// Offsets of the fields in the seal, in bytes.
    pub(crate) const ARCH: u64 = 32;
    pub(crate) const CPU_FEATURES: u64 = 36;
    pub(crate) const BUILD_ID: u64 = 53;
}

/// Bytes that the engine keeps with the code.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Section<'a> {
    #[br(err_context(Field::SectionTag))]
    pub(crate) tag: u32,

    /// Bit 0: a reader that does not know the tag must reject the entry. The others are 0.
    #[br(err_context(Field::SectionFlags))]
    pub(crate) flags: u8,

    #[br(temp, err_context(Field::SectionLength))]
    #[bw(try_calc(u64::try_from(bytes.bytes().len())))]
    length: u64,

    #[br(args(file, Some(length)), err_context(Field::Section))]
    pub(crate) bytes: Run<'a>,
}

/// The name of an import. Those of an entry follow each other up to the end of their section.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Import<'a> {
    #[br(temp, err_context(Field::ImportLength))]
    #[bw(try_calc(u32::try_from(name.bytes().len())))]
    length: u32,

    #[br(args(file, Some(length.into())), err_context(Field::Import))]
    pub(crate) name: Run<'a>,
}

/// What code reads and writes beside itself, up to the end of its section.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Data<'a> {
    /// How many of the bytes in front nobody writes to.
    #[br(err_context(Field::ReadOnlyLength))]
    pub(crate) read_only: u64,

    #[br(args(file, None))]
    pub(crate) bytes: Run<'a>,
}

/// Rows of offset, length and end of the name, and the names, up to the end of the section.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Symbols<'a> {
    #[br(temp, err_context(Field::SymbolCount))]
    #[bw(try_calc(u64::try_from(rows.rows().len())))]
    count: u64,

    #[br(args(file, count), err_context(Field::Symbols))]
    pub(crate) rows: Table<'a, 3>,

    #[br(args(file, None))]
    pub(crate) names: Run<'a>,
}

/// Where in the read-only data the unwind tables lie.
#[binrw]
#[brw(little)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UnwindTables {
    #[br(err_context(Field::UnwindTables))]
    pub(crate) offset: u64,

    #[br(err_context(Field::UnwindTables))]
    pub(crate) length: u64,
}

/// A part of a recipe. Those of an entry follow each other up to the end of their section.
#[binrw]
#[brw(little)]
#[br(import_raw(file: Run<'a>))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecipePart<'a> {
    /// 0: a setting of the identity; 1: a flag; 2: a source.
    #[br(err_context(Field::PartKind))]
    pub(crate) kind: u8,

    #[br(temp, err_context(Field::PartNameLength))]
    #[bw(try_calc(u64::try_from(name.bytes().len())))]
    name_length: u64,

    #[br(args(file, Some(name_length)), err_context(Field::PartName))]
    pub(crate) name: Run<'a>,

    #[br(temp, err_context(Field::PartValueLength))]
    #[bw(try_calc(u64::try_from(value.bytes().len())))]
    value_length: u64,

    #[br(args(file, Some(value_length)), err_context(Field::PartValue))]
    pub(crate) value: Run<'a>,
}

/// The end of a sealed entry, from which the seal is found.
#[binrw]
#[brw(little)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footer {
    /// Length of seal and footer, in bytes.
    #[br(err_context(Field::SealLength))]
    pub(crate) seal_length: u64,

    /// Length of the file, in bytes.
    #[br(err_context(Field::FileLength))]
    pub(crate) file_length: u64,

    /// 0: under the key that everybody knows; 1: under a secret one.
    #[br(err_context(Field::DigestKind))]
    pub(crate) digest_kind: u8,

    /// Digest of the rows of the source map, or of no bytes.
    #[br(err_context(Field::SourceMapDigest))]
    pub(crate) source_map_digest: Bytes<32>,

    /// Digest of every byte of the file in front of it, except the rows of the source map.
    #[br(err_context(Field::Digest))]
    pub(crate) digest: Bytes<32>,

    /// [`Footer::MAGIC`].
    #[br(err_context(Field::SealMagic))]
    pub(crate) magic: Bytes<8>,
}

impl Footer {
    /// What a sealed entry ends with; the digit is the revision of the seal.
    pub(crate) const MAGIC: Bytes<8> = Bytes(*b"JITSEAL1");

    /// Size of a footer in the file, in bytes.
    pub(crate) const SIZE: u64 = 89;

    /// Size of what stands behind the digest, in bytes, and of the digest itself.
    pub(crate) const DIGEST_AND_MAGIC: u64 = 40;
}

/// The machine of the entries of a pack, behind its header.
#[binrw]
#[brw(little)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PackTarget {
    #[br(err_context(Field::Arch))]
    pub(crate) arch: u16,

    #[br(err_context(Field::Os))]
    pub(crate) os: u16,
}

/// A row of the index of a pack: which entry lies where.
#[binrw]
#[brw(little)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PackRow {
    #[br(err_context(Field::Key))]
    pub(crate) key: Bytes<32>,

    /// Offset of the entry in the file.
    #[br(err_context(Field::EntryOffset))]
    pub(crate) offset: u64,

    /// Length of the entry, in bytes.
    #[br(err_context(Field::EntryLength))]
    pub(crate) length: u64,
}

impl PackRow {
    /// Size of a row in the file, in bytes, and where in it the fields are.
    pub(crate) const SIZE: usize = 48;
    pub(crate) const OFFSET: u64 = 32;
    pub(crate) const LENGTH: u64 = 40;
}

/// The end of a pack, from which its index is found.
#[binrw]
#[brw(little)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PackFooter {
    #[br(err_context(Field::EntryCount))]
    pub(crate) entry_count: u64,

    /// Length of the file, in bytes.
    #[br(err_context(Field::FileLength))]
    pub(crate) file_length: u64,

    /// As in [`Footer`].
    #[br(err_context(Field::DigestKind))]
    pub(crate) digest_kind: u8,

    /// Digest of what stands in front of the first entry, of the index, and of the footer up to here.
    #[br(err_context(Field::Digest))]
    pub(crate) digest: Bytes<32>,
}

impl PackFooter {
    /// Size of the footer, and of what of it the digest covers, in bytes.
    pub(crate) const SIZE: u64 = 49;
    pub(crate) const COVERED: u64 = 17;
}
