//! What wazero wrote is read, found sound, and written again as the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jitcache::entry::TryTable;
use jitcache::error::Field;
use jitcache::wazero;
use jitcache::{Arch, CpuFeatures, Entry, Error, Identity, Key, Revision};
use sha2::{Digest, Sha256};

/// An entry under `tests/golden`, with its line of the manifest.
pub struct Golden {
    pub directory: String,
    pub name: String,
    pub file: Vec<u8>,
    line: Vec<String>,
}

impl Golden {
    /// Returns all 49 of them.
    pub fn all() -> Vec<Self> {
        let manifest = fs::read_to_string(directory().join("manifest.tsv")).unwrap();
        let lines = manifest.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        lines
            .map(|line| {
                let (directory, name) = line[0].split_once('/').unwrap();
                Self {
                    file: fs::read(self::directory().join(directory).join(name)).unwrap(),
                    directory: directory.to_owned(),
                    name: name.to_owned(),
                    line,
                }
            })
            .collect()
    }

    pub fn identity(&self) -> Identity {
        Identity::wazero_from_directory_name(&self.directory).unwrap()
    }

    /// Returns the WebAssembly module that the entry was compiled from.
    pub fn module(&self) -> Vec<u8> {
        fs::read(directory().join("modules").join(format!("{}.wasm", self.line[1]))).unwrap()
    }

    fn number(&self, column: usize) -> usize {
        self.line[column].parse().unwrap()
    }
}

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_entry_is_what_the_manifest_says_and_is_written_again_as_the_same_bytes() {
    let golden = Golden::all();
    assert_eq!(golden.len(), 49);
    for golden in golden {
        let identity = golden.identity();
        let entry = Entry::parse(&golden.file, &identity).unwrap();
        entry.verify().unwrap();
        assert_eq!(golden.file.len(), golden.number(4));
        assert_eq!(entry.version(), golden.line[5].as_bytes());
        assert_eq!(entry.functions().len(), golden.number(6));
        assert_eq!(entry.code_range().start as usize, golden.number(7));
        assert_eq!(entry.code().len(), golden.number(8));
        assert_eq!(format!("{:08x}", entry.code_checksum()), golden.line[9]);
        let rows = entry.source_map().map_or("-".to_owned(), |map| map.len().to_string());
        assert_eq!(rows, golden.line[10]);
        let tables: Vec<_> = entry.try_tables().map(Result::unwrap).collect();
        let told = |revisions: &[Revision], tell: fn(&TryTable<'_>) -> String| {
            let tables = || tables.iter().map(tell).collect::<Vec<_>>().join(",");
            match revisions.contains(&identity.revision()) {
                false => "-".to_owned(),
                true if tables().is_empty() => "none".to_owned(),
                true => tables(),
            }
        };
        let with_tables = [Revision::CatchClauses, Revision::Locals];
        assert_eq!(told(&with_tables, |table| table.clauses().count().to_string()), golden.line[11]);
        let locals = told(&[Revision::Locals], |table| {
            let locals = table.locals().unwrap();
            format!("{}/{}", locals.count, u8::from(locals.reuse))
        });
        assert_eq!(locals, golden.line[15]);
        let clauses = told(&with_tables, |table| {
            let clauses = table.clauses().map(Result::unwrap).map(|clause| format!("{}:{}", clause.kind, clause.tag));
            let clauses = clauses.collect::<Vec<_>>().join(" ");
            if clauses.is_empty() { "none".to_owned() } else { clauses }
        });
        assert_eq!(clauses, golden.line[16]);
        assert_eq!(digest(entry.code()), golden.line[13]);
        let offsets: Vec<u8> = entry.functions().iter().flat_map(u64::to_le_bytes).collect();
        assert_eq!(digest(&offsets), golden.line[14]);
        assert_eq!(entry.to_vec(), golden.file, "{}", golden.line[0]);
    }
}

#[test]
fn every_name_is_recomputed_from_the_module() {
    for golden in Golden::all() {
        let module = wazero::ModuleId::new(&golden.module(), &[], false);
        let key = Key::wazero(module, golden.number(3) as u64);
        assert_eq!(key.to_string(), golden.name, "{}", golden.line[0]);
    }
}

#[test]
fn the_feature_words_are_those_of_machines_that_have_everything() {
    let amd64 = CpuFeatures::from_bits(Arch::Amd64, u128::MAX);
    let arm64 = CpuFeatures::from_bits(Arch::Arm64, u128::MAX);
    for golden in Golden::all() {
        let release = if golden.line[5] == "v1.9.0" { wazero::Features::UpTo1_10 } else { wazero::Features::From1_11 };
        let features = if golden.line[2] == "amd64" { amd64 } else { arm64 };
        assert_eq!(release.word(features), golden.number(3) as u64);
    }
}

#[test]
#[cfg(feature = "cache")]
fn a_directory_of_wazero_opens_as_a_store() {
    use jitcache::{Lookup, Os, Store, Target};

    let mut found = 0;
    let versions = ["v1.9.0", "v1.12.0", "v1.12.1-0.20260714071631-236c2458ed22+dirty"];
    for (version, arch) in versions.iter().flat_map(|version| [(version, Arch::Amd64), (version, Arch::Arm64)]) {
        let identity = Identity::wazero(version).unwrap().with_target(Target { arch, os: Os::Linux });
        let store = Store::open(directory(), identity).unwrap();
        for key in store.list().unwrap() {
            assert!(matches!(store.get(&key.unwrap()).unwrap(), Lookup::Hit(_)));
            found += 1;
        }
    }
    assert_eq!(found, 49);
}

#[test]
fn an_entry_read_in_another_revision_is_rejected_left_or_the_same_in_both() {
    let revisions = [Revision::SourceMap, Revision::CatchClauses, Revision::Locals, Revision::Unknown];
    let mut outcomes = BTreeMap::new();
    for golden in Golden::all() {
        let (own, length) = (golden.identity().revision(), golden.file.len() as u64);
        let tables = Entry::parse(&golden.file, &golden.identity()).unwrap().try_tables().count() as u64;
        for revision in revisions.into_iter().filter(|revision| *revision != own) {
            let identity = golden.identity().with_revision(revision);
            let parsed = Entry::parse(&golden.file, &identity).and_then(|entry| entry.verify());
            let outcome = match (revision, parsed) {
                (_, Err(Error::Truncated { field: Field::TryTableCount, at, expected: 4, found: 0 })) => {
                    assert_eq!((own, at), (Revision::SourceMap, length));
                    "cut"
                }
                (Revision::SourceMap, Err(Error::Trailing { found, .. })) => {
                    assert_eq!(found, length);
                    "trailing"
                }
                (Revision::Unknown, Err(Error::UnknownLayout { at, found })) => {
                    let count = &golden.file[at as usize..][..4];
                    assert_eq!((count, u64::from(found)), (&found.to_le_bytes()[..], tables));
                    "left"
                }
                (_, Err(error)) if error.is_rejection() => {
                    assert!(tables > 0, "{error:?}");
                    "rejected"
                }
                (_, Ok(())) => {
                    assert_eq!(tables, 0, "misread: {}", golden.line[0]);
                    "the same"
                }
                other => panic!("{other:?}"),
            };
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
    }
    let expected = [("cut", 14 * 3), ("left", 7), ("rejected", 7), ("the same", 28 * 2), ("trailing", 35)];
    assert_eq!(outcomes, BTreeMap::from(expected));
}
