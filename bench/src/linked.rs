//! Code that calls out: loading and binding it, beside the same code without imports, and beside patching it by hand.

use std::time::Duration;

use jitcache::{Access, Builder, Key, Linker, Lookup, Place, RelocationKind, Store};
use jitcache_testkit::random::Random;

use crate::measure::{self, Cell, percentile};
use crate::ours::IN_PLACE;
use crate::pages::Pages;
use crate::report;
use crate::subject::{Seal, work_directory};
use crate::way::{Kind, Loaded, Outcome, Way, way};

const FUNCTIONS: usize = 3000;
/// Bytes of code for each.
const FUNCTION: usize = 256;
/// Where in each function a call has its operand.
const CALLS: [usize; 2] = [64, 160];
const IMPORTS: [&str; 5] = ["allocate", "grow", "compare", "raise", "print"];

const READ: &str = "read";
const IN_PLACE_ALONE: &str = "in place";
const IN_PLACE_BOUND: &str = "in place, bound";

/// Returns a table of microseconds, and of ratios made round by round.
pub fn measure(budget: Duration) -> Outcome<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok("Not measured: the calls are those of x86-64.\n".to_owned());
    }
    eprintln!("linked ...");
    let code = Random(0).bytes(FUNCTIONS * FUNCTION);
    let [mut alone, mut linked, mut by_hand] = [(); 3].map(|()| {
        let mut builder = Builder::new();
        builder.code(code.clone());
        for function in 0..FUNCTIONS {
            builder.function((function * FUNCTION) as u64);
        }
        builder
    });
    let imports = IMPORTS.map(|name| linked.import(name));
    let mut places = Vec::new();
    for call in 0..FUNCTIONS * CALLS.len() {
        let at = (call / CALLS.len() * FUNCTION + CALLS[call % CALLS.len()]) as u64;
        let kind = [RelocationKind::X86CallPLTRel4, RelocationKind::X86GOTPCRel4][call % 2];
        linked.relocate(Place::Code(at), kind, imports[call % IMPORTS.len()], -4);
        places.extend(at.to_le_bytes());
    }
    by_hand.metadata(&places);

    let ways = [
        load(READ, Access::READ, &mut alone)?,
        load("read, bound", Access::READ, &mut linked)?,
        load(IN_PLACE_ALONE, IN_PLACE, &mut alone)?,
        load(IN_PLACE_BOUND, IN_PLACE, &mut linked)?,
        patch("patched by hand", &mut by_hand)?,
    ];
    let cells = measure::row(&ways, budget, |way| (way.load)().map(drop))?;
    let of = [None, Some(READ), None, Some(IN_PLACE_ALONE), Some(IN_PLACE_BOUND)];
    let line = |((way, cell), of): ((&Way, &Cell), Option<&str>)| {
        let other = of.and_then(|of| Some((of, &cells[ways.iter().position(|way| way.name == of)?])));
        let ratio = other.map(|(of, other)| format!("{} of *{of}*", report::by_rounds(cell, other)));
        let micros = [50, 10, 90].map(|percent| report::micros(percentile(&cell.load, percent)));
        (way.name.to_owned(), micros.into_iter().chain([ratio.unwrap_or_default()]).collect())
    };
    let lines: Vec<_> = ways.iter().zip(&cells).zip(of).map(line).collect();
    Ok(report::table("µs", &["median", "p10", "p90", "ratio"].map(String::from), &lines))
}

fn load(name: &'static str, access: Access, builder: &mut Builder<'_>) -> Outcome<Way> {
    let (store, key) = store(name, builder)?;
    let store =
        store.with_access(access).with_linker(Linker::new(|name| address(IMPORTS.iter().position(|n| n == &name)?)));
    Ok(way(Kind::Ours, name, store.path(&key), move || match store.load(&key)? {
        Lookup::Hit(module) => Ok(module),
        other => Err(format!("no hit: {other:?}").into()),
    }))
}

/// What an engine does around a cache that knows no imports: the code is copied, and an address of eight bytes written
/// into it for each call.
fn patch(name: &'static str, builder: &mut Builder<'_>) -> Outcome<Way> {
    let (store, key) = store(name, builder)?;
    Ok(way(Kind::Floor, name, store.path(&key), move || {
        let Lookup::Hit(verified) = store.get_verified(&key)? else { return Err("no hit".into()) };
        let entry = verified.entry();
        let mut pages = Pages::anonymous(entry.code().len())?;
        // SAFETY: the pages are new.
        let code = unsafe { pages.bytes_mut() };
        code.copy_from_slice(entry.code());
        let places = entry.metadata().ok_or("no places")?.as_chunks().0;
        for (call, place) in places.iter().enumerate() {
            let (at, target) = (u64::from_le_bytes(*place) as usize, address(call % IMPORTS.len()).ok_or("no import")?);
            code[at..at + 8].copy_from_slice(&(target.addr() as u64).to_le_bytes());
        }
        Ok(Patched(pages.executable()?))
    }))
}

struct Patched(Pages);

impl Loaded for Patched {
    fn code(&self) -> Option<&[u8]> {
        Some(self.0.bytes())
    }
}

/// What the imports are bound to; nothing of it is called.
fn address(import: usize) -> Option<*const u8> {
    IMPORTS.get(import).map(|name| name.as_ptr())
}

fn store(name: &str, builder: &mut Builder<'_>) -> Outcome<(Store, Key)> {
    let store = Store::open(work_directory().join("linked"), Seal::Checksum.identity()?)?;
    let key = Key::of(store.identity()).source(name.as_bytes()).finish();
    store.put(&key, &builder.finish(store.identity(), &key)?)?;
    Ok((store, key))
}
