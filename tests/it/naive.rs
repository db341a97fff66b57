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
}

/// The fields of a file whose lengths fit, their content not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'a> {
    functions: Cursor<'a>,
    function_alignment: u64,
    code: Cursor<'a>,
    code_checksum: u32,
    source_map: Option<Cursor<'a>>,
    /// The count, and everything behind it to the end of the file.
    try_tables: Option<(u32, Cursor<'a>)>,
}

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

/// Checks lengths, magic and version: what opening an entry finds.
///
/// The insides of the try tables are left to [`verify`], and with them the end of a file of revision 1.12.
pub fn open<'a>(file: &'a [u8], identity: &Identity<'_>) -> Result<Opened<'a>, Wrong> {
    let mut cursor = Cursor { at: 0, rest: file };
    if cursor.bytes("magic")? != identity.magic {
        return Err(Wrong::Magic);
    }
    let [version_length] = cursor.bytes("version length")?;
    if cursor.take("version", version_length.into())?.rest != identity.version {
        return Err(Wrong::Stale);
    }

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
    let mut try_tables = None;
    if identity.revision == Revision::CatchClauses {
        let count = cursor.u32("try table count")?;
        try_tables = Some((count, cursor.clone()));
    }
    if source_map_flag > 1 || (source_map_flag == 1 && code.rest.is_empty()) {
        return Err(Wrong::Value { field: "source map flag", at: source_map_flag_at });
    }
    if identity.revision == Revision::SourceMap {
        cursor.expect_end()?;
    }

    let function_alignment = identity.function_alignment;
    Ok(Opened { functions, function_alignment, code, code_checksum, source_map, try_tables })
}

/// Checks everything that [`open`] does not.
pub fn verify(opened: &Opened<'_>) -> Result<Entry, Wrong> {
    let code = opened.code.rest;
    if crc32c(code) != opened.code_checksum {
        return Err(Wrong::Checksum);
    }
    let functions = functions(opened)?;
    let rows = opened.source_map.clone();
    let source_map = rows.map(|rows| source_map(rows, code.len() as u64)).transpose()?;
    let tables = opened.try_tables.clone();
    let try_tables = tables.map_or(Ok(Vec::new()), |(count, tables)| try_tables(count, tables))?;
    Ok(Entry {
        functions,
        code_at: opened.code.at,
        code: code.to_vec(),
        code_checksum: opened.code_checksum,
        source_map,
        try_tables,
    })
}

fn functions(opened: &Opened<'_>) -> Result<Vec<u64>, Wrong> {
    let field = "function offsets";
    let alignment = opened.function_alignment.max(1);
    let mut functions: Vec<u64> = Vec::new();
    let mut cursor = opened.functions.clone();
    while !cursor.is_at_end() {
        let at = cursor.at;
        let start = cursor.u64(field)?;
        let rises = functions.last().is_none_or(|&last| last < start);
        let is_inside = start < opened.code.rest.len() as u64;
        if !rises || !is_inside || start % alignment != 0 {
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
