//! Entries handed from real wazero programs to this crate, and back.
//!
//! Whether a program runs an entry of ours or what it compiles itself is told by a constant: `fib.wasm` exits with
//! fib(10) = 55, and with fib(9) = 34 if one byte of its code is changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use jitcache::entry::{CatchClause, SourceRow};
use jitcache::wazero;
use jitcache::{Builder, CpuFeatures, Entry, Error, Identity, Key, Lookup, MacKey, Revision, Sealing, Store};

use crate::scratch::Scratch;
use crate::skip::skip;

/// Programs, the versions that their entries carry, the revisions of these, and how they tell processors apart.
const PROGRAMS: [(&str, &str, Revision, wazero::Features); 4] = [
    ("wazero", "dev", Revision::CatchClauses, wazero::Features::From1_11),
    ("buf-v1.9.0", "v1.9.0", Revision::SourceMap, wazero::Features::UpTo1_10),
    ("buf-v1.11.0", "v1.11.0", Revision::SourceMap, wazero::Features::From1_11),
    ("buf-v1.12.0", "v1.12.0", Revision::CatchClauses, wazero::Features::From1_11),
];

/// Modules, and the codes they exit with; those with 0 do not call for an exit.
const MODULES: [(&str, u8); 7] =
    [("fib", 55), ("chain", 144), ("dwarf", 21), ("numeric", 42), ("table", 42), ("one", 0), ("none", 0)];

#[test]
fn what_wazero_wrote_is_read_verified_and_rewritten_to_the_same_bytes() {
    for wazero in wazeros() {
        MODULES.iter().for_each(|(module, exit)| wazero.run(module, *exit));
        let store = wazero.store();
        let listed = store.list().unwrap().collect::<Result<BTreeSet<_>, _>>().unwrap();
        assert_eq!(listed, MODULES.iter().map(|(module, _)| wazero.key(module)).collect());
        for key in listed {
            let file = store.get(&key).unwrap().hit().unwrap();
            let entry = Entry::parse(&file, &wazero.identity).unwrap();
            entry.verify().unwrap();
            assert_eq!(entry.to_vec(), *file, "{key}");
            assert_eq!(parts(&entry).finish(&wazero.identity, &key).unwrap().to_vec(), *file, "{key}");
        }
    }
}

#[test]
fn wazero_runs_what_was_rebuilt_from_parts_with_one_constant_changed() {
    for wazero in wazeros() {
        let compiled = wazero.compiled_fib();
        wazero.assert_runs(&mut wazero.fib_of_nine(&compiled));
    }
}

#[test]
fn wazero_runs_an_entry_that_was_there_before_it_ever_ran() {
    let Some(donor) = wazeros().into_iter().next() else { return };
    let compiled = donor.compiled_fib();
    let mut builder = donor.fib_of_nine(&compiled);
    for wazero in wazeros() {
        assert!(!wazero.cache.exists());
        wazero.assert_runs(&mut builder);
    }
}

#[test]
fn an_entry_with_a_source_map_runs_under_every_release() {
    // buf maps modules with DWARF sections alone, but compiles this one to the same code: the first program's rows fit.
    let wazeros = wazeros();
    let Some((donor, bufs)) = wazeros.split_first() else { return };
    let compiled = donor.compiled_fib();
    let donated = Entry::parse(&compiled, &donor.identity).unwrap();
    let map = donated.source_map().unwrap();
    for wazero in bufs {
        let compiled = wazero.compiled_fib();
        let entry = Entry::parse(&compiled, &wazero.identity).unwrap();
        assert_eq!((entry.code(), entry.source_map()), (donated.code(), None));
        let mut builder = wazero.fib_of_nine(&compiled);
        for SourceRow { source, code } in map.iter() {
            builder.source(code, source);
        }
        wazero.assert_runs(&mut builder);
    }
}

#[test]
fn wazero_reads_try_tables_to_their_last_byte() {
    // The programs have exceptions switched off and never write such tables; they read any.
    let clauses = [0, 1, 2, 3].map(|kind| CatchClause { kind, tag: 7 });
    for wazero in wazeros().iter().filter(|wazero| wazero.identity.revision() == Revision::CatchClauses) {
        let compiled = wazero.compiled_fib();
        let mut builder = wazero.fib_of_nine(&compiled);
        builder.try_table(&clauses).try_table(&[]).try_table(&clauses[1..]);
        wazero.assert_runs(&mut builder);

        let file = builder.finish(&wazero.identity, &wazero.key("fib")).unwrap().to_vec();
        fs::write(wazero.path(), &file[..file.len() - 1]).unwrap();
        let (_, text) = wazero.execute("fib");
        assert!(text.contains("error reading catch clause[2][2]"), "{text}");

        // Only what ends before or in the count is compiled again: entries of earlier releases.
        for missing in 1..=4 {
            fs::write(wazero.path(), &file[..compiled.len() - missing]).unwrap();
            assert_eq!(wazero.compiled_fib(), compiled);
        }
    }
}

#[test]
fn wazero_reads_what_follows_empty_code_four_bytes_early() {
    for wazero in wazeros() {
        wazero.run("none", 0);
        let path = wazero.store().path(&wazero.key("none"));
        let file = fs::read(&path).unwrap();
        // Checksum and flag follow the code, and try tables are counted behind them.
        let stale = if wazero.identity.revision() == Revision::SourceMap { 5..5 } else { 5..9 };
        for missing in (1..5).chain(stale.clone()) {
            let cut = &file[..file.len() - missing];
            fs::write(&path, cut).unwrap();
            wazero.run("none", 0);
            let expected = if stale.contains(&missing) { &file[..] } else { cut };
            assert_eq!(fs::read(&path).unwrap(), expected, "{missing}");
            assert!(Entry::parse(cut, &wazero.identity).is_err());
        }
        fs::write(&path, &file[..file.len() - stale.end]).unwrap();
        let (_, text) = wazero.execute("none");
        assert!(text.contains("error reading source map presence"), "{text}");
    }
}

#[test]
fn wazero_takes_an_entry_of_another_version_for_stale_and_so_do_we() {
    for wazero in wazeros() {
        let compiled = wazero.compiled_fib();
        let mut version = String::from_utf8(wazero.identity.version().as_bytes().into()).unwrap();
        version.replace_range(version.len() - 1.., "9");
        let other = Identity::wazero(&version).unwrap().with_revision(wazero.identity.revision());
        let entry = wazero.fib_of_nine(&compiled).finish(&other, &wazero.key("fib")).unwrap().to_vec();
        fs::write(wazero.path(), entry).unwrap();

        let found = wazero.store().get(&wazero.key("fib")).unwrap();
        assert!(matches!(&found, Lookup::Stale(version) if version == other.version()), "{found:?}");
        assert_eq!(wazero.compiled_fib(), compiled);
    }
}

#[test]
fn bytes_behind_the_end_are_ignored_by_wazero_and_an_error_for_us() {
    for wazero in wazeros() {
        let compiled = wazero.compiled_fib();
        let entry = wazero.fib_of_nine(&compiled).finish(&wazero.identity, &wazero.key("fib")).unwrap().to_vec();
        let file = [&entry[..], b"behind"].concat();
        fs::write(wazero.path(), &file).unwrap();
        wazero.run("fib", 34);
        assert_eq!(fs::read(wazero.path()).unwrap(), file);

        // Where try tables end is known only when all of them have been read.
        let parsed = Entry::parse(&file, &wazero.identity);
        assert_eq!(parsed.is_ok(), wazero.identity.revision() == Revision::CatchClauses, "{parsed:?}");
        let error = parsed.and_then(|entry| entry.verify()).unwrap_err();
        let Error::Trailing { at, expected, found } = error else { panic!("{error:?}") };
        assert_eq!([at, expected, found], [entry.len(), entry.len(), file.len()].map(|length| length as u64));
    }
}

/// A program with a cache of its own.
struct Wazero {
    binary: PathBuf,
    /// buf runs a module as its plugin and closes it when a context is done; the command line program does neither.
    is_buf: bool,
    identity: Identity,
    features: wazero::Features,
    scratch: Scratch,
    cache: PathBuf,
}

/// Returns every program, or none if they are not on this machine; the tests pass with none.
fn wazeros() -> Vec<Wazero> {
    let directory = env::var_os("JITCACHE_WAZERO").unwrap_or_else(|| "target/wazero".into());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    if let Some((missing, ..)) = PROGRAMS.iter().find(|(name, ..)| !directory.join(name).is_file()) {
        skip("wazero", &format!("no {missing} in {}: run .ci/wazero target/wazero", directory.display()));
        return Vec::new();
    }
    let wazero = |(name, version, revision, features): (&str, &str, _, _)| {
        let scratch = Scratch::new();
        // Where buf has its cache, below the directory that it is told; the other program is told all of this.
        let cache = scratch.path().join("buf/v3/wasmruntime");
        let (binary, is_buf) = (directory.join(name), name.starts_with("buf"));
        let identity = Identity::wazero(version).unwrap();
        // Debian's program does not say which version it is.
        assert!(identity.revision() == revision || version == "dev");
        Wazero { binary, is_buf, identity: identity.with_revision(revision), features, scratch, cache }
    };
    PROGRAMS.map(wazero).into()
}

impl Wazero {
    fn store(&self) -> Store {
        Store::open(&self.cache, self.identity.clone()).unwrap()
    }

    fn key(&self, module: &str) -> Key {
        let id = wazero::ModuleId::new(&fs::read(wasm(module)).unwrap(), &[], self.is_buf);
        Key::wazero(id, self.features.word(CpuFeatures::host()))
    }

    /// Returns the path of the entry of fib.
    fn path(&self) -> PathBuf {
        self.store().path(&self.key("fib"))
    }

    /// Returns the entry of fib after a run that ended as the compiler of the program has it.
    fn compiled_fib(&self) -> Vec<u8> {
        self.run("fib", 55);
        fs::read(self.path()).unwrap()
    }

    /// Takes the entry of fib apart, and changes its constant: in `mov ecx, 10`.
    fn fib_of_nine<'a>(&self, compiled: &'a [u8]) -> Builder<'a> {
        let entry = Entry::parse(compiled, &self.identity).unwrap();
        let mut code = entry.code().to_vec();
        let at = code.windows(5).position(|instruction| instruction == [0xb9, 10, 0, 0, 0]).unwrap();
        code[at + 1] = 9;
        let mut builder = parts(&entry);
        builder.code(code);
        builder
    }

    /// Puts entries made of [`Wazero::fib_of_nine`], plain and sealed, sees them run, and sees that they were not
    /// written again.
    fn assert_runs(&self, builder: &mut Builder<'_>) {
        let key = self.key("fib");
        for sealing in [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([3; 32]))] {
            let identity = self.identity.clone().with_sealing(sealing);
            let entry = builder.finish(&identity, &key).unwrap();
            let store = Store::open(&self.cache, identity.clone()).unwrap();
            store.put(&key, &entry).unwrap();
            self.run("fib", 34);
            let file = store.get(&key).unwrap().hit().unwrap();
            assert_eq!(*file, entry.to_vec());
            Entry::parse(&file, &identity).unwrap().verify().unwrap();
        }
    }

    /// Runs a module, and returns how the program exited and what it said.
    fn execute(&self, module: &str) -> (Option<i32>, String) {
        let mut command = Command::new(&self.binary);
        command.env_clear().current_dir(self.scratch.path());
        if self.is_buf {
            let write = |name: &str, content: &[u8]| fs::write(self.scratch.path().join(name), content).unwrap();
            write("buf.yaml", b"version: v2\nplugins: [{plugin: plug.wasm}]\n");
            write("a.proto", b"syntax = \"proto3\";\n");
            write("plug.wasm", &fs::read(wasm(module)).unwrap());
            command.arg("lint").env("XDG_CACHE_HOME", self.scratch.path());
        } else {
            command.arg("run").arg("-cachedir").arg(&self.cache).arg(wasm(module));
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn run(&self, module: &str, exit: u8) {
        let (status, text) = self.execute(module);
        // To buf these modules are plugins that fail, whether they exit or return.
        let as_expected = match (self.is_buf, exit) {
            (false, _) => status == Some(exit.into()),
            (true, 0) => text.contains("did not return a protocol version"),
            (true, _) => text.contains(&format!("exit_code({exit})")),
        };
        assert!(as_expected, "{:?}: {module} should exit with {exit}: {status:?}, {text}", self.binary);
    }
}

fn wasm(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/modules").join(module).with_extension("wasm")
}

/// Takes an entry apart, and returns a builder of the same one.
fn parts<'a>(entry: &Entry<'a>) -> Builder<'a> {
    let mut builder = Builder::new();
    builder.code(entry.code());
    for offset in entry.functions().iter() {
        builder.function(offset);
    }
    for SourceRow { source, code } in entry.source_map().iter().flat_map(|map| map.iter()) {
        builder.source(code, source);
    }
    for table in entry.try_tables() {
        builder.try_table(&table.unwrap().clauses().collect::<Result<Vec<_>, _>>().unwrap());
    }
    builder
}
