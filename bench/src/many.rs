//! Many small modules in one process: what each of them costs.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jitcache::{Key, Lookup, Module, Registry, Store};
use jitcache_testkit::random::Random;

use crate::measure::{median, since};
use crate::memory;
use crate::ours;
use crate::pages::Pages;
use crate::plot::Line;
use crate::report;
use crate::subject::{Seal, entry, work_directory};
use crate::way::{Kind, Outcome};

pub const CHILD: &str = "--many";

pub const COUNTS: [usize; 5] = [10, 100, 1000, 10_000, 100_000];

/// Reads every file into one mapping that is then made executable, unchecked.
const ARENA: &str = "floor: read all, one mapping";
const READ: &str = "read, checksum";
const WAYS: [&str; 4] = [READ, "in place, checksum", "in place, unchecked", ARENA];

/// With its tables and its seal, an entry of it has a little more than 1 KB.
const CODE: usize = 576;
const FUNCTIONS: usize = 3;
const ROWS: usize = 10;

/// How many modules the time of an insertion or a removal is the mean of.
const CHANGED: usize = 1000;
const LOOKUPS: usize = 1 << 16;
/// How long the registry may take to be filled.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a child tells, a line each, as far as it comes.
const COLUMNS: [&str; 7] = [
    "loaded",
    "load, µs each",
    "resident, KiB each",
    "mappings",
    "insert, µs each",
    "lookup, ns each",
    "remove, µs each",
];

/// The columns of whole numbers.
const COUNTED: [usize; 2] = [0, 3];

/// The figures of one way for one number of modules, as far as there are any.
pub struct Figures {
    way: &'static str,
    count: usize,
    columns: Vec<f64>,
}

pub fn measure(most: usize, runs: usize) -> Outcome<Vec<Figures>> {
    let store = store()?;
    eprintln!("{most} modules ...");
    for unit in 0..most {
        let key = key(&store, unit);
        let code = Random(0).bytes(CODE);
        let functions: Vec<u64> = (0..FUNCTIONS).map(|function| (function * CODE / FUNCTIONS) as u64).collect();
        // Without syncing, which a put does and which takes a hundred times as long.
        fs::write(store.path(&key), entry(&code, &functions, ROWS).finish(store.identity(), &key)?.to_vec())?;
    }
    let mut all = Vec::new();
    for count in COUNTS.into_iter().filter(|count| *count <= most) {
        for way in WAYS {
            let runs = (0..runs).map(|_| run(count, way)).collect::<Outcome<Vec<_>>>()?;
            let known = runs.iter().map(Vec::len).min().unwrap_or(0);
            let column = |at: usize| median(&runs.iter().map(|run| run[at]).collect::<Vec<_>>()) as f64 / 1000.0;
            all.push(Figures { way, count, columns: (0..known).map(column).collect() });
        }
    }
    fs::remove_dir_all(store.directory())?;
    Ok(all)
}

/// Returns thousandths of the figures of one child.
fn run(count: usize, way: &str) -> Outcome<Vec<u64>> {
    let output = Command::new(std::env::current_exe()?).args([CHILD, &count.to_string(), way]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    eprint!("{told}");
    // One that ends by a signal found no memory where nobody can be told so; what it said before is true.
    if output.status.code().is_some_and(|code| code != 0) {
        return Err(format!("{way}: {told}").into());
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::parse).collect::<Result<_, _>>()?)
}

fn store() -> Outcome<Store> {
    Ok(Store::open(work_directory().join("many"), Seal::Checksum.identity()?)?)
}

fn key(store: &Store, unit: usize) -> Key {
    Key::of(store.identity()).source(&(unit as u64).to_le_bytes()).finish()
}

pub fn child(count: &str, way: &str) -> Outcome<()> {
    let count: usize = count.parse()?;
    let store = store()?;
    let keys: Vec<Key> = (0..count).map(|unit| key(&store, unit)).collect();
    let (resident, mappings) = (resident()?, mappings()?);
    let loaded = |count: usize, start: Instant| {
        let time = since(start);
        println!("{}\n{}", count * 1000, time / count as u64);
    };
    let taken_up = || -> Outcome<()> {
        println!("{}", (self::resident()?.saturating_sub(resident)) * 1000 / count as u64);
        println!("{}", self::mappings()?.saturating_sub(mappings) * 1000);
        Ok(())
    };
    if way == ARENA {
        let start = Instant::now();
        let _arena = arena(&store, &keys)?;
        loaded(count, start);
        return taken_up();
    }
    let store = store.with_access(ours::access(way)?);
    let mut modules = Vec::with_capacity(count);
    let start = Instant::now();
    for key in &keys {
        match store.load(key) {
            Ok(Lookup::Hit(module)) => modules.push(module),
            Ok(other) => return Err(format!("no hit: {other:?}").into()),
            // What the system has no more of.
            Err(error) => {
                println!("{}", modules.len() * 1000);
                eprintln!("{way}: {} of {count} modules, then: {error}", modules.len());
                return Ok(());
            }
        }
    }
    loaded(count, start);
    taken_up()?;
    registered(modules.into_iter().map(Arc::new).collect())
}

/// Reads the files behind each other, each where a cache line begins.
fn arena(store: &Store, keys: &[Key]) -> Outcome<Pages> {
    let mut pages = Pages::anonymous(keys.len() * 4096)?;
    // SAFETY: the pages are new, of `Pages::anonymous`.
    let mut rest = unsafe { pages.bytes_mut() };
    for key in keys {
        let mut file = File::open(store.path(key))?;
        let length = usize::try_from(file.metadata()?.len())?;
        let (bytes, behind) = rest.split_at_mut_checked(length.next_multiple_of(64)).ok_or("a long entry")?;
        file.read_exact(&mut bytes[..length])?;
        rest = behind;
    }
    Ok(pages.executable()?)
}

/// Tells what it takes to put modules into a registry, to look them up there and to take them out.
fn registered(modules: Vec<Arc<Module>>) -> Outcome<()> {
    let registry = Registry::new();
    let end = Instant::now() + PATIENCE;
    let (first, last) = modules.split_at(modules.len().saturating_sub(CHANGED));
    for module in first {
        registry.insert(Arc::clone(module))?;
        if Instant::now() > end {
            eprintln!("{} modules are not registered within {PATIENCE:?}", modules.len());
            return Ok(());
        }
    }
    println!("{}", each(last, |module| Ok(registry.insert(Arc::clone(module))?))?);

    let mut random = Random(0);
    let pc = |_| modules[random.index(modules.len())].address_range().start + random.index(CODE);
    let pcs: Vec<usize> = (0..LOOKUPS).map(pc).collect();
    let look_up = |pc: &usize| match black_box(registry.locate(black_box(*pc))) {
        Some(_) => Ok(()),
        None => Err("the registry does not find its own modules".into()),
    };
    // The first time is for the caches.
    each(&pcs, look_up)?;
    println!("{}", each(&pcs, look_up)? * 1000);

    let chosen: Vec<_> = modules.iter().step_by(modules.len().div_ceil(CHANGED)).cloned().collect();
    println!("{}", each(&chosen, |module| if registry.remove(module) { Ok(()) } else { Err("no module".into()) })?);
    Ok(())
}

/// Returns the mean time in nanoseconds.
fn each<T>(values: &[T], act: impl FnMut(&T) -> Outcome<()>) -> Outcome<u64> {
    let start = Instant::now();
    values.iter().try_for_each(act)?;
    Ok(since(start) / values.len() as u64)
}

fn resident() -> Outcome<u64> {
    memory::rollup("self")?.get("Rss").copied().ok_or_else(|| "no resident memory".into())
}

fn mappings() -> Outcome<u64> {
    Ok(fs::read_to_string("/proc/self/maps")?.lines().count() as u64)
}

pub fn table(all: &[Figures]) -> String {
    let line = |figures: &Figures| {
        let shown = |at: usize| match figures.columns.get(at) {
            Some(count) if COUNTED.contains(&at) => format!("{count}"),
            Some(value) => report::three_digits(*value),
            None => String::new(),
        };
        (format!("{} × {}", figures.count, figures.way), (0..COLUMNS.len()).map(shown).collect())
    };
    report::table("modules", &COLUMNS.map(String::from), &all.iter().map(line).collect::<Vec<_>>())
}

pub fn csv(all: &[Figures]) -> String {
    let mut text = format!("way,modules,\"{}\"\n", COLUMNS.join("\",\""));
    for Figures { way, count, columns } in all {
        let values: Vec<String> =
            (0..COLUMNS.len()).map(|at| columns.get(at).map(f64::to_string).unwrap_or_default()).collect();
        text += &format!("\"{way}\",{count},{}\n", values.join(","));
    }
    text
}

/// Returns the time of each load, and that of the registry, in microseconds, over the number of modules.
pub fn lines(all: &[Figures]) -> Vec<Line> {
    let line = |way: &'static str, at: usize, name: String, unit: f64| {
        let these = all.iter().filter(|figures| figures.way == way);
        let points =
            these.filter_map(|figures| Some((figures.count as f64, figures.columns.get(at)? * unit))).collect();
        Line { name, kind: if way == ARENA { Kind::Floor } else { Kind::Ours }, points }
    };
    let loads = WAYS.into_iter().map(|way| line(way, 1, format!("load: {}", way.trim_start_matches("floor: ")), 1.0));
    let registry = [(4, "insert", 1.0), (5, "lookup", 0.001), (6, "remove", 1.0)];
    loads.chain(registry.into_iter().map(|(at, name, unit)| line(READ, at, name.into(), unit))).collect()
}
