//! A second reader of the entry format, written from SPEC.md alone, to compare the real one with.
//!
//! It shares nothing with the crate and is slow on purpose: what it does should be plain to see.

use aegis::aegis128x2::Aegis128X2Mac;
use sha2::{Digest as _, Sha256};

/// What reader and writer agree on beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    pub magic: [u8; 6],
    pub version: &'a [u8],
    pub revision: Revision,
    /// 0 and 1 both stand for an engine that has no alignment.
    pub function_alignment: u64,
    /// Whether the alignment counts from the start of the file, and not from that of the code.
    pub is_aligned_in_file: bool,
    /// If there is one, entries must be sealed, and are of revision `catch clauses` if `revision` is `source map`.
    pub seal: Option<Expected<'a>>,
}

/// What a seal is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected<'a> {
    pub arch: u16,
    pub os: u16,
    /// What the machine has.
    pub cpu_features: u128,
    pub build_id: &'a [u8],
    /// The tags that the engine knows, beside metadata.
    pub sections: &'a [u32],
    /// The digest must be of kind 1 if there is one, otherwise of kind 0.
    pub mac_key: Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    SourceMap,
    CatchClauses,
    Locals,
    Unknown,
}

/// An entry that breaks no rule of the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub functions: Vec<u64>,
    /// Where in the file the code starts.
    pub code_at: u64,
    pub code: Vec<u8>,
    pub code_checksum: u32,
    /// Rows of source offset and code offset.
    pub source_map: Option<Vec<(u64, u64)>>,
    /// Empty in revision `source map`.
    pub try_tables: Vec<TryTable>,
    /// There if one was expected.
    pub seal: Option<Seal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryTable {
    /// Local count and reuse flag, in revision `locals`.
    pub locals: Option<(u32, bool)>,
    /// Kind and tag index.
    pub clauses: Vec<(u8, u32)>,
}

/// What a seal says that is not just compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Compared with nothing.
    pub key: [u8; 32],
    /// What the code needs.
    pub cpu_features: u128,
    pub build_id: Vec<u8>,
    /// Tag, flags and content of all sections, those that nobody knows among them.
    pub sections: Vec<(u32, u8, Vec<u8>)>,
    /// Kind, name and value of every part, if there is one.
    pub recipe: Option<Vec<(u8, String, Vec<u8>)>>,
}

/// What is wrong, at which byte of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    Magic,
    Stale,
    /// There are `found` try tables in revision `unknown`; `at` is where their count is.
    UnknownLayout {
        at: u64,
        found: u32,
    },
    /// `at` is where the field starts; both counts are of bytes from there.
    Truncated {
        field: &'static str,
        at: u64,
        expected: u64,
        found: u64,
    },
    /// `at` is where the offending number starts.
    Value {
        field: &'static str,
        at: u64,
        expected: Allowed,
        found: u64,
    },
    /// Of the code, or the first eight bytes of a wrong digest of kind 0; `expected` is what the file says.
    Checksum {
        expected: u64,
        found: u64,
    },
    /// `at` is the first byte that belongs to no field, `found` where the bytes end that should end there.
    Trailing {
        at: u64,
        found: u64,
    },
    /// `at` is where the seal magic should be.
    Unsealed {
        at: u64,
    },
    /// `at` is where the architecture is.
    Target {
        at: u64,
    },
    CpuFeatures {
        at: u64,
    },
    /// `at` is where the bytes of the build id start.
    BuildId {
        at: u64,
    },
    /// `at` is where the section's tag is.
    UnknownSection {
        at: u64,
    },
    /// A wrong digest of kind 1, which is at `at`.
    Forged {
        at: u64,
    },
}

/// What a number may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    Exactly(u64),
    AtMost(u64),
    Below(u64),
    Above(u64),
    MultipleOf(u64),
}

/// The fields of a file whose lengths fit, their content not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'a> {
    function_alignment: u64,
    is_aligned_in_file: bool,
    revision: Revision,
    body: Body<'a>,
    seal: Option<OpenedSeal<'a>>,
}

/// The fields between the version and the seal, or the end of the file if it has no seal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body<'a> {
    functions: Cursor<'a>,
    code: Cursor<'a>,
    code_checksum: u32,
    source_map_flag: u8,
    source_map_flag_at: u64,
    source_map: Option<Cursor<'a>>,
    /// The number of try tables and where it is, but not in revision `source map`.
    try_table_count: Option<(u32, u64)>,
    /// What is behind the last of the fields above: the try tables, or in revision `source map` nothing that is wanted.
    behind: Cursor<'a>,
}

/// A seal that is the expected one, its digest not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenedSeal<'a> {
    key: [u8; 32],
    cpu_features: u128,
    build_id: &'a [u8],
    sections: Vec<Section<'a>>,
    arch: u16,
    mac_key: Option<[u8; 32]>,
    /// Every byte of the file in front of the digest.
    digested: &'a [u8],
    source_map_digest: [u8; 32],
    source_map_digest_at: u64,
    digest: [u8; 32],
    digest_at: u64,
}

/// Tag, flags and content.
type Section<'a> = (u32, u8, Cursor<'a>);

/// What is still to be read, and where in the file it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor<'a> {
    at: u64,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, field: &'static str, length: u128) -> Result<Cursor<'a>, Wrong> {
        let at = self.at;
        let fitting = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        // a length that no u64 can hold is told as the largest one
        let expected = u64::try_from(length).unwrap_or(u64::MAX);
        let found = self.rest.len() as u64;
        let (taken, rest) = fitting.ok_or(Wrong::Truncated { field, at, expected, found })?;
        self.at += taken.len() as u64;
        self.rest = rest;
        Ok(Cursor { at, rest: taken })
    }

    fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Wrong> {
        let taken = self.take(field, N as u128)?;
        Ok(taken.rest.try_into().expect("as many bytes were taken"))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Wrong> {
        self.bytes(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, Wrong> {
        self.bytes(field).map(u64::from_le_bytes)
    }

    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn expect_end(&self) -> Result<(), Wrong> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err(Wrong::Trailing { at: self.at, found: self.at + self.rest.len() as u64 })
        }
    }
}

/// Checks lengths, magic, version and all of the seal but the digest: what opening an entry finds.
///
/// The insides of the try tables are left to [`verify`], and with them the end of the body.
pub fn open<'a>(file: &'a [u8], identity: &Identity<'_>) -> Result<Opened<'a>, Wrong> {
    let mut cursor = Cursor { at: 0, rest: file };
    if cursor.bytes("magic")? != identity.magic {
        return Err(Wrong::Magic);
    }
    let [version_length] = cursor.bytes("version length")?;
    if cursor.take("version", version_length.into())?.rest != identity.version {
        return Err(Wrong::Stale);
    }

    let mut revision = identity.revision.clone();
    let mut opened_seal = None;
    if let Some(expected) = &identity.seal {
        if revision == Revision::SourceMap {
            revision = Revision::CatchClauses;
        }
        let (in_front, seal) = seal(file, cursor, &revision, expected, identity.is_aligned_in_file)?;
        cursor = in_front;
        opened_seal = Some(seal);
    }

    let body = body(cursor, &revision)?;
    let flag = body.source_map_flag;
    let highest = if body.code.rest.is_empty() { 0 } else { 1 };
    if flag > highest {
        let (field, at) = ("source map flag", body.source_map_flag_at);
        return Err(Wrong::Value { field, at, expected: Allowed::AtMost(highest.into()), found: flag.into() });
    }
    if revision == Revision::SourceMap {
        body.behind.expect_end()?;
    }
    if let Some((found, at)) = body.try_table_count
        && revision == Revision::Unknown
        && found > 0
    {
        return Err(Wrong::UnknownLayout { at, found });
    }
    let Identity { function_alignment, is_aligned_in_file, .. } = *identity;
    Ok(Opened { function_alignment, is_aligned_in_file, revision, body, seal: opened_seal })
}

/// Finds nothing but truncated fields.
fn body<'a>(mut cursor: Cursor<'a>, revision: &Revision) -> Result<Body<'a>, Wrong> {
    let function_count = cursor.u32("function count")?;
    let functions = cursor.take("function offsets", 8 * u128::from(function_count))?;
    let code_length = cursor.u64("code length")?;
    let code = cursor.take("code", code_length.into())?;
    let code_checksum = cursor.u32("code checksum")?;
    let source_map_flag_at = cursor.at;
    let [source_map_flag] = cursor.bytes("source map flag")?;
    let mut source_map = None;
    if source_map_flag == 1 {
        let length = cursor.u64("source map length")?;
        source_map = Some(cursor.take("source map", 16 * u128::from(length))?);
    }
    let mut try_table_count = None;
    if *revision != Revision::SourceMap {
        let at = cursor.at;
        try_table_count = Some((cursor.u32("try table count")?, at));
    }
    Ok(Body {
        functions,
        code,
        code_checksum,
        source_map_flag,
        source_map_flag_at,
        source_map,
        try_table_count,
        behind: cursor,
    })
}

/// Splits what is behind the version into what is in front of the seal, and the seal.
fn seal<'a>(
    file: &'a [u8],
    mut behind_version: Cursor<'a>,
    revision: &Revision,
    expected: &Expected<'_>,
    is_aligned_in_file: bool,
) -> Result<(Cursor<'a>, OpenedSeal<'a>), Wrong> {
    const FOOTER: u64 = 89;
    let as_plain = behind_version.clone();
    let room = behind_version.rest.len() as u64;
    let Some(in_front) = room.checked_sub(FOOTER) else {
        body(as_plain, revision)?;
        let (field, at) = ("seal length", behind_version.at);
        return Err(Wrong::Truncated { field, at, expected: FOOTER, found: room });
    };

    let mut footer = behind_version.clone();
    footer.take("seal", in_front.into())?;
    let seal_length_at = footer.at;
    let seal_length = footer.u64("seal length")?;
    let file_length_at = footer.at;
    let file_length = footer.u64("file length")?;
    let digest_kind_at = footer.at;
    let [digest_kind] = footer.bytes("digest kind")?;
    let source_map_digest_at = footer.at;
    let source_map_digest = footer.bytes("source map digest")?;
    let digest_at = footer.at;
    let digest = footer.bytes("digest")?;
    let digested = Cursor { at: 0, rest: file }.take("digest", digest_at.into())?.rest;
    let magic_at = footer.at;
    if footer.bytes("seal magic")? != *b"JITSEAL1" {
        body(as_plain, revision)?;
        return Err(Wrong::Unsealed { at: magic_at });
    }
    let wrong = |field, at, expected, found| Err(Wrong::Value { field, at, expected, found });
    if file_length != file.len() as u64 {
        return wrong("file length", file_length_at, Allowed::Exactly(file.len() as u64), file_length);
    }
    let Some(body_length) = room.checked_sub(seal_length) else {
        return wrong("seal length", seal_length_at, Allowed::AtMost(room), seal_length);
    };
    let Some(fields_length) = seal_length.checked_sub(FOOTER) else {
        return wrong("seal length", seal_length_at, Allowed::Above(FOOTER - 1), seal_length);
    };
    let right_kind = if expected.mac_key.is_some() { 1 } else { 0 };
    if digest_kind != right_kind {
        return wrong("digest kind", digest_kind_at, Allowed::Exactly(right_kind.into()), digest_kind.into());
    }

    let body = behind_version.take("body", body_length.into())?;
    let mut cursor = behind_version.take("seal", fields_length.into())?;
    let key = cursor.bytes("key")?;
    let arch_at = cursor.at;
    let arch = cursor.bytes("architecture").map(u16::from_le_bytes)?;
    let os_at = cursor.at;
    let os = cursor.bytes("operating system").map(u16::from_le_bytes)?;
    let cpu_features_at = cursor.at;
    let cpu_features = cursor.bytes("CPU features").map(u128::from_le_bytes)?;
    let [build_id_length] = cursor.bytes("build id length")?;
    let build_id = cursor.take("build id", build_id_length.into())?;
    if arch == 0 {
        return wrong("architecture", arch_at, Allowed::Above(0), 0);
    }
    if arch > 9 {
        return wrong("architecture", arch_at, Allowed::AtMost(9), arch.into());
    }
    if os == 0 {
        return wrong("operating system", os_at, Allowed::Above(0), 0);
    }
    if os > 12 {
        return wrong("operating system", os_at, Allowed::AtMost(12), os.into());
    }
    if (arch, os) != (expected.arch, expected.os) {
        return Err(Wrong::Target { at: arch_at });
    }
    if cpu_features & !expected.cpu_features != 0 {
        return Err(Wrong::CpuFeatures { at: cpu_features_at });
    }
    if build_id.rest != expected.build_id {
        return Err(Wrong::BuildId { at: build_id.at });
    }
    let sections = sections(cursor, expected.sections, is_aligned_in_file)?;
    let seal = OpenedSeal {
        key,
        cpu_features,
        build_id: build_id.rest,
        sections,
        arch,
        mac_key: expected.mac_key,
        digested,
        source_map_digest,
        source_map_digest_at,
        digest,
        digest_at,
    };
    Ok((body, seal))
}

fn sections<'a>(mut cursor: Cursor<'a>, known: &[u32], is_aligned_in_file: bool) -> Result<Vec<Section<'a>>, Wrong> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    while !cursor.is_at_end() {
        let tag_at = cursor.at;
        let tag = cursor.u32("section tag")?;
        let flags_at = cursor.at;
        let [flags] = cursor.bytes("section flags")?;
        let length = cursor.u64("section length")?;
        let content = cursor.take("section", length.into())?;
        let wrong = |field, at, expected, found| Err(Wrong::Value { field, at, expected, found });
        if let Some(&(last, _, _)) = sections.last().filter(|&&(last, _, _)| last >= tag) {
            return wrong("section tag", tag_at, Allowed::Above(last.into()), tag.into());
        }
        if flags > 1 {
            return wrong("section flags", flags_at, Allowed::AtMost(1), flags.into());
        }
        let is_linked = is_aligned_in_file && (IMPORTS..=UNWIND_TABLES).contains(&tag);
        if flags == 1 && tag != METADATA && tag != RECIPE && !is_linked && !known.contains(&tag) {
            return Err(Wrong::UnknownSection { at: tag_at });
        }
        sections.push((tag, flags, content));
    }
    Ok(sections)
}

/// Checks everything that [`open`] does not.
pub fn verify(opened: &Opened<'_>) -> Result<Entry, Wrong> {
    let body = &opened.body;
    let code = body.code.rest;
    if let Some(seal) = &opened.seal {
        digest(seal, body.source_map.as_ref())?;
    }
    let (expected, found) = (body.code_checksum.into(), crc32c(code).into());
    if expected != found {
        return Err(Wrong::Checksum { expected, found });
    }
    let functions = functions(opened)?;
    let rows = body.source_map.clone();
    let source_map = rows.map(|rows| source_map(rows, padding(opened), code.len() as u64)).transpose()?;
    let mut tables = Vec::new();
    if let Some((count, _)) = body.try_table_count {
        tables = try_tables(count, &opened.revision, body.behind.clone())?;
    }
    let mut parts = None;
    if let Some(seal) = &opened.seal {
        linked(seal, &body.code, padding(opened))?;
        if let Some((_, _, content)) = seal.sections.iter().find(|section| section.0 == RECIPE) {
            parts = Some(recipe(content.clone())?);
        }
    }
    let seal = opened.seal.as_ref().map(|seal| Seal {
        key: seal.key,
        cpu_features: seal.cpu_features,
        build_id: seal.build_id.to_vec(),
        sections: seal.sections.iter().map(|(tag, flags, content)| (*tag, *flags, content.rest.to_vec())).collect(),
        recipe: parts,
    });
    Ok(Entry {
        functions,
        code_at: body.code.at,
        code: code[padding(opened) as usize..].to_vec(),
        code_checksum: body.code_checksum,
        source_map,
        try_tables: tables,
        seal,
    })
}

const METADATA: u32 = 1 << 31;
const IMPORTS: u32 = METADATA + 1;
const DATA: u32 = METADATA + 2;
const RELOCATIONS: u32 = METADATA + 3;
const SYMBOLS: u32 = METADATA + 4;
const UNWIND_TABLES: u32 = METADATA + 5;
const RECIPE: u32 = METADATA + 6;

/// Checks what code is linked to.
fn linked(seal: &OpenedSeal<'_>, code: &Cursor<'_>, padding: u64) -> Result<(), Wrong> {
    let wrong = |field, at, expected, found| Err(Wrong::Value { field, at, expected, found });
    let of_tag = |tag| seal.sections.iter().find(|section| section.0 == tag).map(|section| section.2.clone());
    for (tag, flags, content) in &seal.sections {
        if (IMPORTS..=RELOCATIONS).contains(tag) && *flags != 1 {
            return wrong("section flags", content.at - 9, Allowed::Exactly(1), (*flags).into());
        }
    }
    if (IMPORTS..=UNWIND_TABLES).all(|tag| of_tag(tag).is_none()) {
        return Ok(());
    }

    let mut imports = 0;
    if let Some(mut names) = of_tag(IMPORTS) {
        while !names.is_at_end() {
            let length = names.u32("import length")?;
            names.take("import", length.into())?;
            imports += 1;
        }
    }
    let (mut read_only, mut writable) = (&[][..], &[][..]);
    let mut read_only_at = 0;
    if let Some(mut data) = of_tag(DATA) {
        let at = data.at;
        let length = data.u64("read-only length")?;
        if length > data.rest.len() as u64 {
            return wrong("read-only length", at, Allowed::AtMost(data.rest.len() as u64), length);
        }
        read_only_at = data.at;
        (read_only, writable) = data.rest.split_at(length as usize);
    }
    let code_length = code.rest.len() as u64;
    if code_length <= padding {
        return wrong("code length", code.at - 8, Allowed::Above(padding), code_length);
    }

    // where everything lies, in bytes from the start of the file, as if the image were laid over it
    let page = if seal.arch == 1 || seal.arch == 5 { 4096 } else { 65536 };
    let engine = code.at + padding;
    let code_end = code.at + code_length;
    let read_only_start = code_end.next_multiple_of(page);
    let read_only_end = read_only_start + read_only.len() as u64;
    let slots_end = read_only_end.next_multiple_of(8) + 8 * imports;
    let writable_start = slots_end.next_multiple_of(page);
    let writable_end = writable_start + writable.len() as u64;
    let image_end = if !writable.is_empty() {
        writable_end
    } else if slots_end > read_only_start {
        slots_end
    } else {
        code_end
    };
    let last_offset = image_end - engine;

    if let Some(mut rows) = of_tag(RELOCATIONS) {
        let length = rows.rest.len() as u64;
        if !length.is_multiple_of(24) {
            return wrong("section length", rows.at - 8, Allowed::MultipleOf(24), length);
        }
        let mut lowest = read_only_start;
        let data_end = if writable.is_empty() { read_only_end } else { writable_end };
        while !rows.is_at_end() {
            let at = rows.at;
            let [place, target, addend] = [(); 3].map(|()| rows.u64("relocations"));
            let (place, target, addend) = (place?, target?, addend?);
            // numbers that would be behind any file are too high wherever they are compared
            let start = place.saturating_add(engine);
            let end = start.saturating_add(8);
            if start < lowest {
                return wrong("relocations", at, Allowed::Above(lowest - engine - 1), place);
            }
            if end > data_end {
                return wrong("relocations", at, Allowed::Below((data_end - engine).saturating_sub(7)), place);
            }
            if end > read_only_end && start < writable_start {
                return wrong("relocations", at, Allowed::Above(writable_start - engine - 1), place);
            }
            if target > imports {
                return wrong("relocations", at + 8, Allowed::AtMost(imports), target);
            }
            if target == 0 && addend > last_offset {
                return wrong("relocations", at + 16, Allowed::AtMost(last_offset), addend);
            }
            lowest = end;
        }
    }
    if let Some(symbols) = of_tag(SYMBOLS) {
        check_symbols(symbols, last_offset)?;
    }
    if let Some(mut place) = of_tag(UNWIND_TABLES) {
        let (at, size) = (place.at, place.rest.len() as u64);
        let offset = place.u64("unwind tables")?;
        let length = place.u64("unwind tables")?;
        if size != 16 {
            return wrong("section length", at - 8, Allowed::Exactly(16), size);
        }
        let (first, last) = (read_only_start - engine, read_only_end - engine);
        if offset < first {
            return wrong("unwind tables", at, Allowed::Above(first - 1), offset);
        }
        if offset > last {
            return wrong("unwind tables", at, Allowed::AtMost(last), offset);
        }
        if length > last - offset {
            return wrong("unwind tables", at + 8, Allowed::AtMost(last - offset), length);
        }
        let skipped = offset - first;
        let rest = &read_only[skipped as usize..][..length as usize];
        check_unwind_tables(Cursor { at: read_only_at + skipped, rest })?;
    }
    Ok(())
}

fn check_symbols(mut symbols: Cursor<'_>, last_offset: u64) -> Result<(), Wrong> {
    let wrong = |at, expected, found| Err(Wrong::Value { field: "symbols", at, expected, found });
    let count = symbols.u64("symbol count")?;
    let mut rows = symbols.take("symbols", 24 * u128::from(count))?;
    let names = symbols.rest.len() as u64;
    let (mut last, mut named) = (0, 0);
    while !rows.is_at_end() {
        let at = rows.at;
        let [offset, length, name_end] = [(); 3].map(|()| rows.u64("symbols"));
        let (offset, length, name_end) = (offset?, length?, name_end?);
        if offset < last {
            return wrong(at, Allowed::Above(last - 1), offset);
        }
        if offset > last_offset {
            return wrong(at, Allowed::AtMost(last_offset), offset);
        }
        if length > last_offset - offset {
            return wrong(at + 8, Allowed::AtMost(last_offset - offset), length);
        }
        if name_end <= named {
            return wrong(at + 16, Allowed::Above(named), name_end);
        }
        if name_end > names {
            return wrong(at + 16, Allowed::AtMost(names), name_end);
        }
        (last, named) = (offset, name_end);
    }
    if named == names { Ok(()) } else { wrong(symbols.at, Allowed::Exactly(named), names) }
}

fn check_unwind_tables(tables: Cursor<'_>) -> Result<(), Wrong> {
    let wrong =
        |at, expected, found: u32| Err(Wrong::Value { field: "unwind tables", at, expected, found: found.into() });
    let word = |at: u64| {
        let start = usize::try_from(at.checked_sub(tables.at)?).ok()?;
        Some(u32::from_le_bytes(tables.rest.get(start..start.checked_add(4)?)?.try_into().unwrap()))
    };
    let mut rest = tables.clone();
    loop {
        let at = rest.at;
        let length = rest.u32("unwind tables")?;
        let left = rest.rest.len() as u64;
        if length == 0 && left == 0 {
            return Ok(());
        }
        if length < 4 {
            return wrong(at, Allowed::Above(3), length);
        }
        if u64::from(length) > left {
            return wrong(at, Allowed::AtMost(left), length);
        }
        let back_at = rest.at;
        let back = word(back_at).unwrap();
        let common = back_at.saturating_sub(back.into());
        let is_common = word(common).is_some_and(|length| length >= 4) && word(common + 4) == Some(0);
        if back != 0 && !is_common {
            return wrong(back_at, Allowed::Exactly(0), back);
        }
        rest.take("unwind tables", length.into())?;
    }
}

/// Kind, name and value of every part.
fn recipe(mut content: Cursor<'_>) -> Result<Vec<(u8, String, Vec<u8>)>, Wrong> {
    let wrong = |field, at, expected, found| Err(Wrong::Value { field, at, expected, found });
    let mut parts = Vec::new();
    while !content.is_at_end() {
        let at = content.at;
        let [kind] = content.bytes("part kind")?;
        let name_length = content.u64("part name length")?;
        let name = content.take("part name", name_length.into())?;
        let value_length_at = content.at;
        let value_length = content.u64("part value length")?;
        let value = content.take("part value", value_length.into())?;
        if kind > 2 {
            return wrong("part kind", at, Allowed::AtMost(2), kind.into());
        }
        if kind == 2 && name_length > 0 {
            return wrong("part name length", at + 1, Allowed::Exactly(0), name_length);
        }
        if kind == 2 && value_length != 40 {
            return wrong("part value length", value_length_at, Allowed::Exactly(40), value_length);
        }
        let texts = [("part name", &name), ("part value", &value)];
        for (field, text) in texts.into_iter().filter(|_| kind < 2) {
            let is_text = |end: &usize| std::str::from_utf8(&text.rest[..*end]).is_ok();
            let end = (0..=text.rest.len()).rev().find(is_text).unwrap();
            if let Some(&found) = text.rest.get(end) {
                return wrong(field, text.at + end as u64, Allowed::Below(0x80), found.into());
            }
        }
        parts.push((kind, String::from_utf8_lossy(name.rest).into_owned(), value.rest.to_vec()));
    }
    Ok(parts)
}

/// Compares the digest of everything but the rows, and then that of the rows.
fn digest(seal: &OpenedSeal<'_>, rows: Option<&Cursor<'_>>) -> Result<(), Wrong> {
    let mut covered = seal.digested.to_vec();
    let rows = rows.map_or(&[][..], |rows| {
        let at = usize::try_from(rows.at).unwrap();
        covered.drain(at..at + rows.rest.len());
        rows.rest
    });
    let key = seal.mac_key.unwrap_or([0; 32]);
    for (name, found, expected, at) in [
        (&b"file"[..], &covered[..], seal.digest, seal.digest_at),
        (b"source map", rows, seal.source_map_digest, seal.source_map_digest_at),
    ] {
        let found = mac(name, &key, found);
        if found == expected {
            continue;
        }
        if seal.mac_key.is_some() {
            return Err(Wrong::Forged { at });
        }
        let [expected, found] = [expected, found].map(|digest| u64::from_le_bytes(digest[..8].try_into().unwrap()));
        return Err(Wrong::Checksum { expected, found });
    }
    Ok(())
}

/// The digest of what is called `name`, under a key.
pub fn mac(name: &[u8], key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let hash = Sha256::digest([b"jitcache 1 ", name, key].concat());
    let [key, nonce] = [&hash[..16], &hash[16..]].map(|half| <[u8; 16]>::try_from(half).unwrap());
    let mut mac = Aegis128X2Mac::<32>::new_with_nonce(&key, &nonce);
    mac.update(bytes);
    mac.finalize()
}

/// Gives a sealed file that was changed the digest that it has to have; its rows of the source map are those.
pub fn seal_again(file: &mut [u8], rows: Option<std::ops::Range<usize>>, mac_key: Option<[u8; 32]>) {
    let digest_at = file.len() - 40;
    let mut covered = file[..digest_at].to_vec();
    covered.drain(rows.unwrap_or(0..0));
    let digest = mac(b"file", &mac_key.unwrap_or([0; 32]), &covered);
    file[digest_at..digest_at + 32].copy_from_slice(&digest);
}

fn functions(opened: &Opened<'_>) -> Result<Vec<u64>, Wrong> {
    let field = "function offsets";
    let alignment = opened.function_alignment.max(1);
    let padding = padding(opened);
    let from = if opened.is_aligned_in_file { opened.body.code.at } else { 0 };
    let mut functions: Vec<u64> = Vec::new();
    let mut cursor = opened.body.functions.clone();
    while !cursor.is_at_end() {
        let at = cursor.at;
        let start = cursor.u64(field)?;
        let code_length = opened.body.code.rest.len() as u64;
        let last = functions.last().map(|last| last + padding).or(padding.checked_sub(1));
        if let Some(expected) = rising_below(start, last, code_length) {
            return Err(Wrong::Value { field, at, expected, found: start });
        }
        if (u128::from(start) + u128::from(from)) % u128::from(alignment) != 0 {
            return Err(Wrong::Value { field, at, expected: Allowed::MultipleOf(alignment), found: start });
        }
        functions.push(start - padding);
    }
    Ok(functions)
}

/// How many bytes of the code are padding.
fn padding(opened: &Opened<'_>) -> u64 {
    let mut padding = 0;
    if opened.is_aligned_in_file {
        while !(opened.body.code.at + padding).is_multiple_of(opened.function_alignment.max(16)) {
            padding += 1;
        }
    }
    padding.min(opened.body.code.rest.len() as u64)
}

fn source_map(mut cursor: Cursor<'_>, padding: u64, code_length: u64) -> Result<Vec<(u64, u64)>, Wrong> {
    let field = "source map";
    let mut rows: Vec<(u64, u64)> = Vec::new();
    while !cursor.is_at_end() {
        let source = cursor.u64(field)?;
        let at = cursor.at;
        let code = cursor.u64(field)?;
        let last = rows.last().map(|&(_, last)| last + padding).or(padding.checked_sub(1));
        if let Some(expected) = rising_below(code, last, code_length) {
            return Err(Wrong::Value { field, at, expected, found: code });
        }
        rows.push((source, code - padding));
    }
    Ok(rows)
}

/// What an offset should have been that is not inside the code, or does not rise above the one in front of it.
fn rising_below(offset: u64, last: Option<u64>, code_length: u64) -> Option<Allowed> {
    if offset >= code_length {
        return Some(Allowed::Below(code_length));
    }
    last.filter(|&last| offset <= last).map(Allowed::Above)
}

fn try_tables(count: u32, revision: &Revision, mut cursor: Cursor<'_>) -> Result<Vec<TryTable>, Wrong> {
    let field = "catch clauses";
    let mut tables = Vec::new();
    for _ in 0..count {
        let mut locals = None;
        if *revision == Revision::Locals {
            let local_count = cursor.u32("local count")?;
            let flag_at = cursor.at;
            let [flag] = cursor.bytes("reuse flag")?;
            locals = Some((local_count, flag, flag_at));
        }
        let clause_count = cursor.u32("catch clause count")?;
        let mut inside = cursor.take(field, 5 * u128::from(clause_count))?;
        if let Some((_, flag, at)) = locals
            && flag > 1
        {
            return Err(Wrong::Value { field: "reuse flag", at, expected: Allowed::AtMost(1), found: flag.into() });
        }
        let mut clauses = Vec::new();
        while !inside.is_at_end() {
            let at = inside.at;
            let [kind] = inside.bytes(field)?;
            if kind > 3 {
                return Err(Wrong::Value { field, at, expected: Allowed::AtMost(3), found: kind.into() });
            }
            clauses.push((kind, inside.u32(field)?));
        }
        tables.push(TryTable { locals: locals.map(|(count, flag, _)| (count, flag == 1)), clauses });
    }
    cursor.expect_end()?;
    Ok(tables)
}

/// The last function that starts at or before `offset`, which must be smaller than the code length.
pub fn function_at(entry: &Entry, offset: u64) -> Option<usize> {
    entry.functions.iter().rposition(|&start| start <= offset)
}

/// The source offset for a return address.
pub fn source_before_return(entry: &Entry, offset: u64) -> Option<u64> {
    let rows = entry.source_map.as_ref()?;
    rows.iter().rfind(|&&(_, code)| code < offset).map(|&(source, _)| source)
}

/// The source offset for the address of an instruction.
pub fn source_at_instruction(entry: &Entry, offset: u64) -> Option<u64> {
    let rows = entry.source_map.as_ref()?;
    rows.iter().rfind(|&&(_, code)| code <= offset).map(|&(source, _)| source)
}

/// CRC-32C, one bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                // 1edc6f41 with its bits reversed
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}
