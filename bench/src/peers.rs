//! What others load of the same modules: wasmtime and wasmer, each its own artifact.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use crate::subject::{Subject, work_directory};
use crate::way::{Kind, Loaded, Outcome, Way, way};

const WASMTIME: &str = "wasmtime";
const WASMER: &str = "wasmer";

const FILE: &str = "wasmtime, file";
const MEMORY: &str = "wasmtime, memory";
const CHECKED: &str = "wasmer";
const UNCHECKED: &str = "wasmer, unchecked";

/// Compiles a module that was fetched, unless that was done before. The code that wasmtime made of it becomes the
/// subject's.
pub fn compile(name: &str) -> Outcome<()> {
    let wasm = work_directory().with_file_name("wasm").join(name).with_extension("wasm");
    if Subject::open(name).is_ok_and(|there| there.artifact(WASMER).exists()) || !wasm.exists() {
        return Ok(());
    }
    eprintln!("compiling {name} ...");
    let wasm = fs::read(wasm)?;
    let module = wasmtime::Module::new(&wasmtime::Engine::default(), &wasm)?;
    let mut functions: Vec<u64> = module.functions().map(|function| function.offset as u64).collect();
    functions.sort_unstable();
    functions.dedup();
    let subject = Subject::create(name, module.text(), &functions)?;
    fs::write(subject.artifact(WASMTIME), module.serialize()?)?;
    let module = wasmer::Module::new(&wasmer::Store::default(), &wasm)?;
    // Last, because it tells that everything is there.
    Ok(fs::write(subject.artifact(WASMER), module.serialize()?)?)
}

/// Returns the ways of the peers that are wanted; none if the subject was no module.
pub fn ways(subject: &Subject, wanted: impl Fn(&str) -> bool) -> Outcome<Vec<Way>> {
    let mut ways = Vec::new();
    if subject.artifact(WASMER).exists() {
        // To make their engines takes longer than a load.
        if [FILE, MEMORY].into_iter().any(&wanted) {
            ways.extend(wasmtime_ways(&subject.artifact(WASMTIME))?);
        }
        if [CHECKED, UNCHECKED].into_iter().any(&wanted) {
            ways.extend(wasmer_ways(&subject.artifact(WASMER)));
        }
        ways.retain(|way| wanted(way.name));
    }
    Ok(ways)
}

impl Loaded for wasmtime::Module {
    fn code(&self) -> Option<&[u8]> {
        Some(self.text())
    }
}

fn wasmtime_ways(file: &Path) -> Outcome<Vec<Way>> {
    let engine = wasmtime::Engine::default();
    let (bytes, path, again) = (fs::read(file)?, file.to_owned(), engine.clone());
    Ok(vec![
        way(Kind::Peer, FILE, file.to_owned(), move || {
            // SAFETY: the file is what this engine wrote, in `compile`, and nobody changes it.
            Ok(unsafe { wasmtime::Module::deserialize_file(&engine, &path) }?)
        }),
        way(Kind::Peer, MEMORY, file.to_owned(), move || {
            // SAFETY: the bytes are what this engine wrote, in `compile`.
            Ok(unsafe { wasmtime::Module::deserialize(&again, &bytes) }?)
        }),
    ])
}

/// An engine of wasmer's keeps the code of all its modules until it is dropped itself, so that each load has its own.
struct WasmerModule {
    _module: wasmer::Module,
    next: Rc<RefCell<wasmer::Engine>>,
}

impl Loaded for WasmerModule {
    fn code(&self) -> Option<&[u8]> {
        None
    }
}

impl Drop for WasmerModule {
    fn drop(&mut self) {
        self.next.replace(wasmer::Engine::default());
    }
}

fn wasmer_ways(file: &Path) -> Vec<Way> {
    let make = |name, checked: bool| {
        let (path, next) = (file.to_owned(), Rc::new(RefCell::new(wasmer::Engine::default())));
        way(Kind::Peer, name, file.to_owned(), move || {
            let engine = next.borrow();
            let module = if checked {
                // SAFETY: the file is what wasmer wrote, in `compile`, and nobody changes it.
                unsafe { wasmer::Module::deserialize_from_file(&*engine, &path) }?
            } else {
                // SAFETY: as above.
                unsafe { wasmer::Module::deserialize_from_file_unchecked(&*engine, &path) }?
            };
            Ok(WasmerModule { _module: module, next: Rc::clone(&next) })
        })
    };
    vec![make(CHECKED, true), make(UNCHECKED, false)]
}
