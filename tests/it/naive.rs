//! A second reader of the entry format, written from SPEC.md alone, to compare the real one with.
//!
//! It shares nothing with the crate and is slow on purpose: what it does should be plain to see.

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
    /// If there is one, entries must be sealed, and are of revision 1.12 whatever `revision` is.
    pub seal: Option<Expected<'a>>,
}

/// What a seal is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected<'a> {
    pub arch: u16,
    pub os: u16,
    /// What the machine has.
    pub cpu_features: u64,
    pub build_id: &'a [u8],
    /// The tags that the engine knows, beside metadata.
    pub sections: &'a [u32],
    /// The digest must be of kind 1 if there is one, otherwise of kind 0.
    pub mac_key: Option<[u8; 32]>,
}

/// Named for the last field of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// 1.9
    SourceMap,
    /// 1.12
    CatchClauses,
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
    /// For each `try_table` its clauses of kind and tag index. Empty in revision 1.9.
    pub try_tables: Vec<Vec<(u8, u32)>>,
    /// There if one was expected.
    pub seal: Option<Seal>,
}

/// What a seal says that is not just compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Compared with nothing.
    pub key: [u8; 32],
    /// What the code needs.
    pub cpu_features: u64,
    pub build_id: Vec<u8>,
    /// Tag, flags and content of all sections, those that nobody knows among them.
    pub sections: Vec<(u32, u8, Vec<u8>)>,
}

/// What is wrong, at which byte of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    Magic,
    Stale,
    /// `at` is where the field starts.
    Truncated {
        field: &'static str,
        at: u64,
    },
    /// `at` is where the offending number starts.
    Value {
        field: &'static str,
        at: u64,
    },
    Checksum,
    /// `at` is the first byte that belongs to no field.
    Trailing {
        at: u64,
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
    /// A wrong digest of kind 0.
    FileChecksum,
}

/// The fields of a file whose lengths fit, their content not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'a> {
    function_alignment: u64,
    is_aligned_in_file: bool,
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
    /// The number of try tables, in revision 1.12.
    try_table_count: Option<u32>,
    /// What is behind the last of the fields above: in revision 1.12 the try tables, otherwise nothing that is wanted.
    behind: Cursor<'a>,
}

/// A seal that is the expected one, its digest not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenedSeal<'a> {
    key: [u8; 32],
    cpu_features: u64,
    build_id: &'a [u8],
    sections: Vec<Section<'a>>,
    mac_key: Option<[u8; 32]>,
    /// Every byte of the file in front of the digest.
    digested: &'a [u8],
    source_map_digest: [u8; 32],
    source_map_digest_at: u64,
    digest: [u8; 32],
    digest_at: u64,
}

/// Tag, flags and content.
type Section<'a> = (u32, u8, &'a [u8]);

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
        let (taken, rest) = fitting.ok_or(Wrong::Truncated { field, at })?;
        self.at += taken.len() as u64;
        self.rest = rest;
        Ok(Cursor { at, rest: taken })
    }

    fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Wrong> {
        let at = self.at;
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(Wrong::Truncated { field, at })?;
        self.at += N as u64;
        self.rest = rest;
        Ok(bytes)
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
        if self.is_at_end() { Ok(()) } else { Err(Wrong::Trailing { at: self.at }) }
    }
}

/// Checks lengths, magic, version and all of the seal but the digest: what opening an entry finds.
///
/// The insides of the try tables are left to [`verify`], and with them the end of the body in revision 1.12.
pub fn open<'a>(file: &'a [u8], identity: &Identity<'_>) -> Result<Opened<'a>, Wrong> {
    let mut cursor = Cursor { at: 0, rest: file };
    if cursor.bytes("magic")? != identity.magic {
        return Err(Wrong::Magic);
    }
    let [version_length] = cursor.bytes("version length")?;
    if cursor.take("version", version_length.into())?.rest != identity.version {
        return Err(Wrong::Stale);
    }

    let mut revision = &identity.revision;
    let mut opened_seal = None;
    if let Some(expected) = &identity.seal {
        revision = &Revision::CatchClauses;
        let (in_front, seal) = seal(file, cursor, expected)?;
        cursor = in_front;
        opened_seal = Some(seal);
    }

    let body = body(cursor, revision)?;
    let flag = body.source_map_flag;
    if flag > 1 || (flag == 1 && body.code.rest.is_empty()) {
        return Err(Wrong::Value { field: "source map flag", at: body.source_map_flag_at });
    }
    if *revision == Revision::SourceMap {
        body.behind.expect_end()?;
    }
    let Identity { function_alignment, is_aligned_in_file, .. } = *identity;
    Ok(Opened { function_alignment, is_aligned_in_file, body, seal: opened_seal })
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
    if *revision == Revision::CatchClauses {
        try_table_count = Some(cursor.u32("try table count")?);
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
    expected: &Expected<'_>,
) -> Result<(Cursor<'a>, OpenedSeal<'a>), Wrong> {
    const FOOTER: u64 = 89;
    let as_plain = behind_version.clone();
    let room = behind_version.rest.len() as u64;
    let Some(in_front) = room.checked_sub(FOOTER) else {
        body(as_plain, &Revision::CatchClauses)?;
        return Err(Wrong::Truncated { field: "seal length", at: behind_version.at });
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
        body(as_plain, &Revision::CatchClauses)?;
        return Err(Wrong::Unsealed { at: magic_at });
    }
    if file_length != file.len() as u64 {
        return Err(Wrong::Value { field: "file length", at: file_length_at });
    }
    let wrong_length = Wrong::Value { field: "seal length", at: seal_length_at };
    let Some(body_length) = room.checked_sub(seal_length) else {
        return Err(wrong_length);
    };
    let Some(fields_length) = seal_length.checked_sub(FOOTER) else {
        return Err(wrong_length);
    };
    if digest_kind != u8::from(expected.mac_key.is_some()) {
        return Err(Wrong::Value { field: "digest kind", at: digest_kind_at });
    }

    let body = behind_version.take("body", body_length.into())?;
    let mut cursor = behind_version.take("seal", fields_length.into())?;
    let key = cursor.bytes("key")?;
    let arch_at = cursor.at;
    let arch = cursor.bytes("architecture").map(u16::from_le_bytes)?;
    let os_at = cursor.at;
    let os = cursor.bytes("operating system").map(u16::from_le_bytes)?;
    let cpu_features_at = cursor.at;
    let cpu_features = cursor.u64("CPU features")?;
    let [build_id_length] = cursor.bytes("build id length")?;
    let build_id = cursor.take("build id", build_id_length.into())?;
    if arch > 4 {
        return Err(Wrong::Value { field: "architecture", at: arch_at });
    }
    if os > 4 {
        return Err(Wrong::Value { field: "operating system", at: os_at });
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
    let sections = sections(cursor, expected.sections)?;
    let seal = OpenedSeal {
        key,
        cpu_features,
        build_id: build_id.rest,
        sections,
        mac_key: expected.mac_key,
        digested,
        source_map_digest,
        source_map_digest_at,
        digest,
        digest_at,
    };
    Ok((body, seal))
}

fn sections<'a>(mut cursor: Cursor<'a>, known: &[u32]) -> Result<Vec<Section<'a>>, Wrong> {
    const METADATA: u32 = 1 << 31;
    let mut sections: Vec<Section<'_>> = Vec::new();
    while !cursor.is_at_end() {
        let tag_at = cursor.at;
        let tag = cursor.u32("section tag")?;
        let flags_at = cursor.at;
        let [flags] = cursor.bytes("section flags")?;
        let length = cursor.u64("section length")?;
        let content = cursor.take("section", length.into())?;
        if sections.last().is_some_and(|&(last, _, _)| last >= tag) {
            return Err(Wrong::Value { field: "section tag", at: tag_at });
        }
        if flags > 1 {
            return Err(Wrong::Value { field: "section flags", at: flags_at });
        }
        if flags == 1 && tag != METADATA && !known.contains(&tag) {
            return Err(Wrong::UnknownSection { at: tag_at });
        }
        sections.push((tag, flags, content.rest));
    }
    Ok(sections)
}

/// Checks everything that [`open`] does not.
pub fn verify(opened: &Opened<'_>) -> Result<Entry, Wrong> {
    let body = &opened.body;
    let code = body.code.rest;
    if crc32c(code) != body.code_checksum {
        return Err(Wrong::Checksum);
    }
    if let Some(seal) = &opened.seal {
        digest(seal, body.source_map.as_ref())?;
    }
    let functions = functions(opened)?;
    let rows = body.source_map.clone();
    let source_map = rows.map(|rows| source_map(rows, code.len() as u64)).transpose()?;
    let mut tables = Vec::new();
    if let Some(count) = body.try_table_count {
        tables = try_tables(count, body.behind.clone())?;
    }
    let seal = opened.seal.as_ref().map(|seal| Seal {
        key: seal.key,
        cpu_features: seal.cpu_features,
        build_id: seal.build_id.to_vec(),
        sections: seal.sections.iter().map(|&(tag, flags, content)| (tag, flags, content.to_vec())).collect(),
    });
    Ok(Entry {
        functions,
        code_at: body.code.at,
        code: code.to_vec(),
        code_checksum: body.code_checksum,
        source_map,
        try_tables: tables,
        seal,
    })
}

/// Compares the digest of everything but the rows, and then that of the rows.
fn digest(seal: &OpenedSeal<'_>, rows: Option<&Cursor<'_>>) -> Result<(), Wrong> {
    let mut covered = seal.digested.to_vec();
    let rows = rows.map_or(&[][..], |rows| {
        let at = usize::try_from(rows.at).unwrap();
        covered.drain(at..at + rows.rest.len());
        rows.rest
    });
    let Some(key) = seal.mac_key else {
        return if seal.digest != checksum_digest(&covered) {
            Err(Wrong::FileChecksum)
        } else if seal.source_map_digest != checksum_digest(rows) {
            Err(Wrong::Checksum)
        } else {
            Ok(())
        };
    };
    // two hashes of this type are compared in constant time
    if blake3::keyed_hash(&key, &covered) != blake3::Hash::from_bytes(seal.digest) {
        return Err(Wrong::Forged { at: seal.digest_at });
    }
    let key = blake3::derive_key("jitcache 2026-11-22 source map", &key);
    if blake3::keyed_hash(&key, rows) != blake3::Hash::from_bytes(seal.source_map_digest) {
        return Err(Wrong::Forged { at: seal.source_map_digest_at });
    }
    Ok(())
}

fn checksum_digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&crc32c(bytes).to_le_bytes());
    digest
}

fn functions(opened: &Opened<'_>) -> Result<Vec<u64>, Wrong> {
    let field = "function offsets";
    let alignment = opened.function_alignment.max(1);
    let from = if opened.is_aligned_in_file { opened.body.code.at } else { 0 };
    let mut functions: Vec<u64> = Vec::new();
    let mut cursor = opened.body.functions.clone();
    while !cursor.is_at_end() {
        let at = cursor.at;
        let start = cursor.u64(field)?;
        let rises = functions.last().is_none_or(|&last| last < start);
        let is_inside = start < opened.body.code.rest.len() as u64;
        if !rises || !is_inside || (u128::from(start) + u128::from(from)) % u128::from(alignment) != 0 {
            return Err(Wrong::Value { field, at });
        }
        functions.push(start);
    }
    Ok(functions)
}

fn source_map(mut cursor: Cursor<'_>, code_length: u64) -> Result<Vec<(u64, u64)>, Wrong> {
    let field = "source map";
    let mut rows: Vec<(u64, u64)> = Vec::new();
    while !cursor.is_at_end() {
        let source = cursor.u64(field)?;
        let at = cursor.at;
        let code = cursor.u64(field)?;
        let rises = rows.last().is_none_or(|&(_, last)| last < code);
        if !rises || code >= code_length {
            return Err(Wrong::Value { field, at });
        }
        rows.push((source, code));
    }
    Ok(rows)
}

fn try_tables(count: u32, mut cursor: Cursor<'_>) -> Result<Vec<Vec<(u8, u32)>>, Wrong> {
    let field = "catch clauses";
    let mut tables = Vec::new();
    for _ in 0..count {
        let clause_count = cursor.u32("catch clause count")?;
        let mut inside = cursor.take(field, 5 * u128::from(clause_count))?;
        let mut clauses = Vec::new();
        while !inside.is_at_end() {
            let at = inside.at;
            let [kind] = inside.bytes(field)?;
            if kind > 3 {
                return Err(Wrong::Value { field, at });
            }
            clauses.push((kind, inside.u32(field)?));
        }
        tables.push(clauses);
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
