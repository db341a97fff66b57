//! Valid entries made from arbitrary bytes: the one generator of the property tests and the fuzz targets.

use arbitrary::{Result, Unstructured};
use jitcache::{Builder, CatchClause, Identity, Revision};

/// The parts of a valid entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    pub identity: Identity,
    pub functions: Vec<u64>,
    pub code: Vec<u8>,
    /// Source offset and code offset.
    pub source_map: Option<Vec<(u64, u64)>>,
    pub try_tables: Vec<Vec<CatchClause>>,
}

impl Parts {
    /// Makes parts of whatever bytes there are; none left over means empty.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::take(&mut Unstructured::new(bytes)).expect("an exhausted source yields zeros")
    }

    pub fn take(from: &mut Unstructured<'_>) -> Result<Self> {
        let revision = if from.arbitrary()? { Revision::CatchClauses } else { Revision::SourceMap };
        let alignment = *from.choose(&[1, 1, 4, 16])?;
        let version = ["v1.9.0", "v1.12.0", "dev", "1", &"x".repeat(128)][from.choose_index(5)?].to_owned();
        let code_length = from.int_in_range(0..=300)?;
        let code = from.bytes(code_length.min(from.len()))?.to_vec();
        let functions = rising(from, code.len() as u64, alignment)?;
        let source_map = if !code.is_empty() && from.arbitrary()? {
            let offsets = rising(from, code.len() as u64, 1)?;
            Some(offsets.into_iter().map(|code| Ok((from.arbitrary()?, code))).collect::<Result<_>>()?)
        } else {
            None
        };
        let mut try_tables = Vec::new();
        while revision == Revision::CatchClauses && try_tables.len() < 5 && from.ratio(1, 3)? {
            let clauses = (0..from.int_in_range(0..=3)?)
                .map(|_| Ok(CatchClause { kind: from.int_in_range(0..=3)?, tag: from.arbitrary()? }))
                .collect::<Result<_>>()?;
            try_tables.push(clauses);
        }
        let identity = Identity::new("generated", *b"GENERA", &version)
            .and_then(|identity| identity.with_revision(revision).with_function_alignment(alignment))
            .expect("the generator knows what identities may be");
        Ok(Self { identity, functions, code, source_map, try_tables })
    }

    /// Returns the parts as a builder that borrows the code.
    pub fn builder(&self) -> Builder<'_> {
        let mut builder = Builder::new();
        builder.code(&self.code[..]);
        for &offset in &self.functions {
            builder.function(offset);
        }
        if self.source_map.is_some() {
            builder.with_source_map();
        }
        for &(source, code) in self.source_map.iter().flatten() {
            builder.source(code, source);
        }
        for clauses in &self.try_tables {
            builder.try_table(clauses);
        }
        builder
    }

    /// Returns the parts as the bytes of a file.
    pub fn file(&self) -> Vec<u8> {
        self.builder().finish(&self.identity).expect("the generator makes valid parts").to_vec()
    }
}

/// Takes strictly rising multiples of `alignment` below `limit`.
fn rising(from: &mut Unstructured<'_>, limit: u64, alignment: u64) -> Result<Vec<u64>> {
    let mut offsets = Vec::new();
    let mut next = 0;
    while next < limit && offsets.len() < 40 && from.ratio(7, 8)? {
        next = (next + from.int_in_range(0..=20)?).next_multiple_of(alignment);
        if next < limit {
            offsets.push(next);
        }
        next += 1;
    }
    Ok(offsets)
}
