//! Many caches of many processes in one directory whose budget is smaller than what they want, for as long as one has
//! time: processes are killed and stopped, entries damaged and removed. Nobody ever runs the wrong code, the budget is
//! held, and those that live on hold no more files and memory at the end than at the start.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, thread};

use jitcache::{Access, Cache, Error, Key, Lookup, Module, Store};

use crate::child::{self, Outcome};
use crate::content::{LARGE, age, builder, file, files, identity, is_code, key};
use crate::hammer::held;
use crate::long;
use crate::random::Random;
use crate::scratch::Scratch;

const PROCESSES: usize = 8;

/// How many entries there are for a budget of so many bytes: all together they take four times as much.
const BYTES_FOR_AN_ENTRY: u64 = 550;

/// Bytes of code in memory, a sixth of what a cache of a process comes to want.
const MEMORY: u64 = 200_000;

/// How often a process asks for a module before it looks at what it holds.
const BATCH: u32 = 1000;

/// How many files and mappings more than at first it may hold by then: pages for small code come and go.
const MORE: usize = 6;

fn open(root: &Path, budget: u64, seed: u64) -> Cache {
    let access = match seed % 3 {
        0 => Access::READ,
        // SAFETY: the files of this test are replaced, damaged ones too, and nobody changes one in place.
        1 => unsafe { Access::map() },
        // SAFETY: the same.
        _ => unsafe { Access::in_place() },
    };
    let store = Store::options(identity()).budget(budget).open(root).unwrap().with_access(access);
    Cache::over(store).with_memory_budget(MEMORY).with_patience(Duration::from_secs(1))
}

/// Gets a module, which takes as long to compile as small functions do.
fn compile(cache: &Cache, n: u64, random: &mut Random) -> Result<Arc<Module>, Error> {
    cache.get_or_compile(&key(n), |entry| {
        *entry = builder(n, random.below(3) as u8);
        for _ in 0..200_000 {
            std::hint::black_box(random.next());
        }
        Ok(())
    })
}

/// Does what an engine does, and what a user may do beside it.
fn step(cache: &Cache, keys: u64, random: &mut Random) -> Result<(), Outcome> {
    // The lower the number, the more often it is wanted.
    let span = random.below(keys) + 1;
    let n = random.below(span);
    let is_right = match random.below(1000) {
        0 => cache.remove(&key(n)).map(|_| true),
        1..20 => Ok(!matches!(cache.verify(&key(n)), Lookup::Stale(_) | Lookup::UnknownLayout(_))),
        20..40 => Ok(cache.get(&key(n)).hit().is_none_or(|module| is_code(n, module.code()))),
        _ => compile(cache, n, random).map(|module| is_code(n, module.code())),
    };
    match is_right {
        Ok(true) => Ok(()),
        Ok(false) => Err(Outcome::Wrong),
        // Somebody has put something else than a file there.
        Err(Error::NotAFile { .. }) => Ok(()),
        Err(error) => {
            eprintln!("{n}: {error}");
            Err(Outcome::Io)
        }
    }
}

/// Works in the directory for as long as it is let, and tells how often it did what and what it holds.
pub fn child(root: &Path, seed: u64) -> Outcome {
    // What the library keeps for small code is there before.
    drop(Module::load(&builder(7, 0).finish(&identity(), &key(7)).unwrap()).unwrap());
    let (mut random, mut first) = (Random(seed), None);
    let mut log = OpenOptions::new().append(true).open(root.join("log")).unwrap();
    let mut is_flat = true;
    while let Ok(budget) = fs::read_to_string(root.join("go")) {
        child::hangs_after(120);
        let budget = budget.parse().unwrap();
        let cache = open(root, budget, seed);
        for _ in 0..BATCH {
            if let Err(outcome) = step(&cache, budget / BYTES_FOR_AN_ENTRY, &mut random) {
                return outcome;
            }
        }
        let told = cache.statistics();
        drop(cache);
        let (files, mappings) = held();
        let (first_files, first_mappings) = *first.get_or_insert((files, mappings));
        is_flat &= files <= first_files + MORE && mappings <= first_mappings + MORE;
        let counts = [told.hits, told.compilations, told.rejected, told.trimmed, told.waits, told.failures];
        let line = format!("{} {files} {mappings} {} {counts:?}\n", std::process::id(), resident());
        log.write_all(line.as_bytes()).unwrap();
    }
    if is_flat { Outcome::Done } else { Outcome::Leak }
}

/// How much memory this process has, in KiB.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// Returns how many bytes the entries have, and their paths.
fn entries(directory: &Path) -> (u64, Vec<PathBuf>) {
    let (mut bytes, mut paths) = (0, Vec::new());
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_entry = entry.file_name().to_str().is_some_and(|name| name.parse::<Key>().is_ok());
        if let Some(found) = entry.metadata().ok().filter(|found| is_entry && found.is_file()) {
            bytes += found.len();
            paths.push(entry.path());
        }
    }
    (bytes, paths)
}

/// Puts something wrong in the place of an entry, as somebody would who writes no file in place.
fn damage(directory: &Path, path: &Path, random: &mut Random) -> std::io::Result<()> {
    let mut bytes = fs::read(path)?;
    let at = random.index(bytes.len().max(1));
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.iter_mut().skip(at).for_each(|byte| *byte = 0),
        2 => bytes = file(random.below(1000), 0),
        3 => bytes = random.bytes(at),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
    }
    let aside = directory.join("aside");
    fs::write(&aside, bytes)?;
    fs::rename(&aside, path)
}

/// What the processes told, of each that lives at the end its first and its last line.
#[derive(Default)]
struct Told {
    counts: [u64; 6],
    held: BTreeMap<u32, (Vec<usize>, Vec<usize>)>,
}

impl Told {
    fn read(log: &Path, alive: &[u32]) -> Self {
        let mut told = Self::default();
        for line in fs::read_to_string(log).unwrap().lines() {
            let (held, counts) = line.split_once(" [").unwrap();
            for (sum, count) in told.counts.iter_mut().zip(counts.trim_end_matches(']').split(", ")) {
                *sum += count.parse::<u64>().unwrap();
            }
            let mut held = held.split(' ').map(|number| number.parse::<usize>().unwrap());
            let process = held.next().unwrap() as u32;
            if alive.contains(&process) {
                let now: Vec<_> = held.collect();
                let (_, last) = told.held.entry(process).or_insert_with(|| (now.clone(), Vec::new()));
                *last = now;
            }
        }
        told
    }
}

/// Four seconds; `JITCACHE_LONG=1` makes it two minutes, and `JITCACHE_SOAK_SECONDS` as long as it says.
#[test]
fn a_cache_that_is_left_alone_runs_no_wrong_code_holds_its_budget_and_nothing_else() {
    let given = env::var("JITCACHE_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds = given.unwrap_or(if long() { 120 } else { 4 });
    let scratch = Scratch::in_memory();
    let root = scratch.path();
    // Filled in a second.
    let budget = if seconds < 60 { 2_000_000 } else { 16_000_000 };
    // Beyond that comes only what is put while a process that removes is stopped or has no processor.
    let bound = budget + budget / 16 * PROCESSES as u64;
    fs::write(root.join("log"), "").unwrap();
    fs::write(root.join("go"), budget.to_string()).unwrap();
    let mut random = Random(std::process::id().into());
    let directory = root.join(identity().directory_name());
    let start = |random: &mut Random| -> Child {
        let mut child = child::command(&format!("soak {}", random.next() >> 1), root);
        child.stdout(Stdio::null()).spawn().unwrap()
    };
    let mut children: Vec<_> = (0..PROCESSES).map(|_| start(&mut random)).collect();
    let (begin, mut minute) = (Instant::now(), 0);
    let (mut looks, mut above, mut most, mut killed, mut stopped, mut damaged) = (0, 0, 0, 0, 0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(5 + random.below(40)));
        let (bytes, paths) = entries(&directory);
        most = most.max(bytes);
        looks += 1;
        above += u64::from(bytes > bound);
        for child in &mut children {
            let ended = child.try_wait().unwrap().map(Outcome::of);
            assert_eq!(ended, None, "a process ends only if something is wrong");
        }
        match looks % 20 {
            0 => {
                // The first two live on.
                let unlucky = &mut children[2 + random.index(PROCESSES - 2)];
                unlucky.kill().unwrap();
                assert_eq!(Outcome::of(unlucky.wait().unwrap()), Outcome::Killed);
                *unlucky = start(&mut random);
                killed += 1;
            }
            1 => {
                let sleepy = children[random.index(PROCESSES)].id() as libc::pid_t;
                // SAFETY: the process is a child that nobody has waited for.
                assert_eq!(unsafe { libc::kill(sleepy, libc::SIGSTOP) }, 0);
                thread::sleep(Duration::from_millis(random.below(100)));
                // SAFETY: the same.
                assert_eq!(unsafe { libc::kill(sleepy, libc::SIGCONT) }, 0);
                stopped += 1;
            }
            2 => drop(fs::remove_file(directory.join("tmp/lock"))),
            _ if paths.is_empty() => {}
            // It may be gone meanwhile.
            _ => damaged += u32::from(damage(&directory, &paths[random.index(paths.len())], &mut random).is_ok()),
        }
        if begin.elapsed().as_secs() / 60 > minute {
            minute += 1;
            println!("minute {minute}: {bytes} bytes, {most} at most, {above} of {looks} looks above; {killed} killed");
        }
    }
    let alive: Vec<_> = children.iter().map(Child::id).collect();
    fs::remove_file(root.join("go")).unwrap();
    for mut child in children {
        assert_eq!(Outcome::of(child.wait().unwrap()), Outcome::Done);
    }
    most = most.max(entries(&directory).0);
    let told = Told::read(&root.join("log"), &alive);
    let [hits, compilations, rejected, trimmed, waits, failures] = told.counts;
    println!("{PROCESSES} processes, {seconds} s: {killed} killed, {stopped} stopped, {damaged} entries damaged");
    println!("{hits} hits, {compilations} compilations, {rejected} rejected, {trimmed} trimmed, {waits} waits");
    println!(
        "{failures} failures; of a budget of {budget} bytes {most} at most, above {bound} in {above} of {looks} looks"
    );
    for (process, (first, last)) in &told.held {
        println!("process {process}: files, mappings, KiB: {first:?} at first, {last:?} at the end");
    }
    assert!(most > budget / 2 && most <= 2 * bound, "{most}");
    assert!(hits > 0 && rejected > 0 && trimmed > 0 && killed > 0, "too little was done");
    // Whatever is left is whole or is told to be bad, and one sweep leaves nothing else.
    let store = Store::open(root, identity()).unwrap();
    assert!(store.tally().unwrap().hits > 0);
    let _ = fs::remove_file(directory.join("aside"));
    for n in LARGE..budget / BYTES_FOR_AN_ENTRY {
        assert!(store.load(&key(n)).unwrap().hit().is_none_or(|module| is_code(n, module.code())), "{n}");
    }
    age(&directory);
    store.sweep().unwrap();
    assert!(files(&directory).keys().all(|name| name.parse::<Key>().is_ok()), "{:?}", files(&directory).keys());
}
