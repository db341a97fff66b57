//! Valid entries made from arbitrary bytes: the one generator of the property tests and the fuzz targets.

use arbitrary::{Result, Unstructured};
use jitcache::entry::{CatchClause, Locals};
use jitcache::{Builder, Identity, Key, MacKey, Place, Recipe, RelocationKind, Revision, Sealing};

/// The parts of a valid entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    pub identity: Identity,
    /// As the engine hands them over; if they are aligned in the file, padding moves them.
    pub functions: Vec<u64>,
    pub code: Vec<u8>,
    /// Source offset and code offset.
    pub source_map: Option<Vec<(u64, u64)>>,
    pub try_tables: Vec<(Option<Locals>, Vec<CatchClause>)>,
    pub key: Key,
    /// Tag, whether it is required, and bytes.
    pub sections: Vec<(u32, bool, Vec<u8>)>,
    pub metadata: Option<Vec<u8>>,
    pub linked: Option<Linked>,
    /// Of [`Parts::key`].
    pub recipe: Option<Recipe>,
}

/// What code is linked to.
#[derive(Debug, Clone, PartialEq)]
pub struct Linked {
    pub imports: Vec<String>,
    pub read_only: Vec<u8>,
    pub writable: Vec<u8>,
    /// Whether it lies in the writable data, which word of them, and what it is the address of.
    pub relocations: Vec<(bool, u64, Place, i64)>,
    pub symbols: Vec<(Place, String)>,
    pub has_unwind_tables: bool,
}

/// Unwind tables of one function: a common record and one that refers to it.
pub const UNWIND_TABLES: [u8; 44] = [
    0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0, // of all
    0x10, 0, 0, 0, 0x1c, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // of the function
];

/// The key of those that are sealed with a MAC.
pub const MAC_KEY: [u8; 32] = *b"known to the tests and no others";

/// The tags that the identities of [`Parts`] know.
pub const KNOWN: [u32; 2] = [1, 5];

impl Parts {
    /// Makes parts of whatever bytes there are; none left over means empty.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::take(&mut Unstructured::new(bytes)).expect("an exhausted source yields zeros")
    }

    pub fn take(from: &mut Unstructured<'_>) -> Result<Self> {
        let revisions = [Revision::SourceMap, Revision::CatchClauses, Revision::Unknown, Revision::Locals];
        let revision = revisions[usize::from(from.arbitrary::<u8>()? % 4)];
        let alignment = *from.choose(&[1, 1, 4, 16])?;
        let in_file = from.ratio(1, 3)?;
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
        let has_tables = matches!(revision, Revision::CatchClauses | Revision::Locals);
        while has_tables && try_tables.len() < 5 && from.ratio(1, 3)? {
            let locals = match revision {
                Revision::Locals => Some(Locals { count: from.arbitrary()?, reuse: from.arbitrary()? }),
                _ => None,
            };
            let clauses = (0..from.int_in_range(0..=3)?)
                .map(|_| Ok(CatchClause { kind: from.int_in_range(0..=3)?, tag: from.arbitrary()? }))
                .collect::<Result<_>>()?;
            try_tables.push((locals, clauses));
        }
        let sealing = match from.int_in_range(0..=3)? {
            0 | 1 => Sealing::Plain,
            2 => Sealing::Checksum,
            _ => Sealing::Mac(MacKey::new(MAC_KEY)),
        };
        let build_id_length = *from.choose(&[0, 0, 20])?;
        let build_id = from.bytes(build_id_length.min(from.len()))?.to_vec();
        let (mut sections, mut metadata) = (Vec::new(), None);
        if sealing != Sealing::Plain {
            for tag in 0..7 {
                if from.ratio(1, 4)? {
                    let required = KNOWN.contains(&tag) && from.arbitrary()?;
                    let length = from.int_in_range(0..=20)?.min(from.len());
                    sections.push((tag, required, from.bytes(length)?.to_vec()));
                }
            }
            metadata = from.arbitrary::<Option<[u8; 9]>>()?.map(Vec::from);
        }
        let key = Key::from_bytes(from.arbitrary()?);
        let is_linkable = sealing != Sealing::Plain && in_file && !code.is_empty();
        let linked = if is_linkable && from.ratio(1, 2)? { Some(Linked::take(from, code.len() as u64)?) } else { None };
        let identity = Identity::new("generated", *b"GENERA", &version)
            .map(|identity| identity.with_revision(revision))
            .and_then(|identity| match in_file {
                true => identity.with_alignment_in_file(alignment),
                false => identity.with_function_alignment(alignment),
            })
            .and_then(|identity| identity.with_sealing(sealing.clone()).with_sections(&KNOWN).with_build_id(&build_id))
            .expect("the generator knows what identities may be");
        let has_recipe = sealing != Sealing::Plain && from.arbitrary()?;
        let recipe = if has_recipe { Some(recipe(from, &identity)?) } else { None };
        let key = recipe.as_ref().map_or(key, |recipe| *recipe.key());
        Ok(Self { identity, functions, code, source_map, try_tables, key, sections, metadata, linked, recipe })
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
        for (locals, clauses) in &self.try_tables {
            add_try_table(&mut builder, *locals, clauses);
        }
        for (tag, required, bytes) in &self.sections {
            builder.section(*tag, *required, bytes);
        }
        if let Some(metadata) = &self.metadata {
            builder.metadata(metadata);
        }
        if let Some(linked) = &self.linked {
            linked.add_to(&mut builder);
        }
        if let Some(recipe) = &self.recipe {
            builder.recipe(recipe);
        }
        builder
    }

    /// Returns the parts as the bytes of a file.
    pub fn file(&self) -> Vec<u8> {
        self.builder().finish(&self.identity, &self.key).expect("the generator makes valid parts").to_vec()
    }
}

impl Linked {
    fn take(from: &mut Unstructured<'_>, code: u64) -> Result<Self> {
        let names = ["a", "memory.grow", "throw", "\u{fc}ber"];
        let imports = (0..from.int_in_range(0..=3)?).map(|n| names[n].to_owned()).collect::<Vec<_>>();
        let [read_only, writable] = [(); 2].map(|()| {
            let length = from.int_in_range(0..=40)?.min(from.len());
            Ok(from.bytes(length)?.to_vec())
        });
        let (read_only, writable): (Vec<_>, Vec<_>) = (read_only?, writable?);
        let mut relocations = Vec::new();
        for (is_writable, data) in [(false, &read_only), (true, &writable)] {
            for word in 0..data.len() as u64 / 8 {
                if from.arbitrary()? {
                    let target = match from.int_in_range(0..=3)? {
                        0 if !imports.is_empty() => Place::Import(from.choose_index(imports.len())? as u32),
                        1 => Place::ReadOnly(from.int_in_range(0..=read_only.len() as u64)?),
                        2 if !writable.is_empty() => Place::Writable(from.int_in_range(0..=writable.len() as u64)?),
                        _ => Place::Code(from.int_in_range(0..=code)?),
                    };
                    let addend = if matches!(target, Place::Import(_)) { from.arbitrary()? } else { 0 };
                    relocations.push((is_writable, word * 8, target, addend));
                }
            }
        }
        let mut symbols = Vec::new();
        while symbols.len() < 4 && from.arbitrary()? {
            symbols.push((Place::Code(from.int_in_range(0..=code - 1)?), format!("symbol {}", symbols.len())));
        }
        Ok(Self { imports, read_only, writable, relocations, symbols, has_unwind_tables: from.arbitrary()? })
    }

    fn add_to(&self, builder: &mut Builder<'_>) {
        for name in &self.imports {
            builder.import(name);
        }
        builder.data(&self.read_only, 16);
        builder.writable_data(&self.writable, 4096);
        for &(is_writable, at, target, addend) in &self.relocations {
            let at = if is_writable { Place::Writable(at) } else { Place::ReadOnly(at) };
            builder.relocate(at, RelocationKind::Abs8, target, addend);
        }
        for (at, name) in &self.symbols {
            builder.symbol(*at, 1, name);
        }
        if self.has_unwind_tables {
            builder.eh_frame(&UNWIND_TABLES);
        }
    }
}

fn recipe(from: &mut Unstructured<'_>, identity: &Identity) -> Result<Recipe> {
    let mut recipe = Recipe::of(identity);
    for _ in 0..from.int_in_range(0..=4)? {
        let texts = ["", "opt", "2", "a\nb", "\u{fc}ber"];
        recipe = match from.arbitrary()? {
            true => recipe.flag(from.choose(&texts)?, from.choose(&texts)?),
            false => recipe.source(from.choose(&texts)?.as_bytes()),
        };
    }
    Ok(recipe.finish())
}

/// Adds a try table with or without locals.
pub fn add_try_table(builder: &mut Builder<'_>, locals: Option<Locals>, clauses: &[CatchClause]) {
    match locals {
        Some(locals) => builder.try_table_with_locals(locals, clauses),
        None => builder.try_table(clauses),
    };
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
