//! How long it takes until stored code can be executed, in the ways of this crate and in others.
//!
//! `cargo run --release -- --help` tells the options.

mod cold;
mod document;
mod floors;
mod library;
mod lookup;
mod machine;
mod measure;
mod memory;
mod ours;
mod pages;
#[cfg(feature = "peers")]
mod peers;
mod plot;
mod publish;
mod registry;
mod report;
mod subject;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use measure::Cell;
use report::Row;
use subject::Subject;
use ways::{Kind, Outcome, Way};

const HELP: &str = "usage: cargo run --release [--features peers] -- [--quick | --full]

  --quick   half a minute, for a look; results go to target/bench/results
  (none)    some minutes; results go to ../docs
  --full    the same with five times the runs

The real modules take part if ./fetch was run, and then a run with the feature `peers`.";

/// How much is measured, and where it is written.
struct Plan {
    /// Time for each way of each row.
    budget: Duration,
    largest: usize,
    results: PathBuf,
}

impl Plan {
    fn new(options: &[String]) -> Option<Self> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let plan = |millis, largest, results| Self { budget: Duration::from_millis(millis), largest, results };
        match options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Some(plan(1000, 64 << 20, docs)),
            ["--full"] => Some(plan(5000, 64 << 20, docs)),
            ["--quick"] => Some(plan(50, 16 << 20, subject::work_directory().join("results"))),
            _ => None,
        }
    }
}

const SIZES: [(&str, usize); 9] = [
    ("300 B", 300),
    ("4 KB", 4 << 10),
    ("64 KB", 64 << 10),
    ("256 KB", 256 << 10),
    ("1 MB", 1 << 20),
    ("4 MB", 4 << 20),
    ("10 MB", 10 << 20),
    ("16 MB", 16 << 20),
    ("64 MB", 64 << 20),
];

fn main() -> Outcome<()> {
    // By default the allocator of glibc keeps what was freed, the more the larger it was, and only the first load of a
    // process would see fresh pages.
    // SAFETY: no other thread is running yet.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
    let options: Vec<String> = std::env::args().skip(1).collect();
    if let [memory::CHILD, subject, way] = options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return memory::child(subject, way);
    }
    let Some(plan) = Plan::new(&options) else {
        println!("{HELP}");
        return Ok(());
    };
    run(&plan)
}

fn run(plan: &Plan) -> Outcome<()> {
    let machine = machine::describe();
    let sizes = SIZES.into_iter().filter(|(_, length)| *length <= plan.largest);
    let synthetic = sizes.map(|(name, length)| Subject::synthetic(name, length, 0)).collect::<Outcome<Vec<_>>>()?;
    let mut real = Vec::new();
    for name in subject::REAL {
        #[cfg(feature = "peers")]
        peers::compile(name)?;
        // Without the peers there are those that an earlier run left.
        real.extend(Subject::renew(name).ok());
    }

    let synthetic_rows = synthetic.iter().map(|subject| warm(plan, subject)).collect::<Outcome<Vec<_>>>()?;
    let real_rows = real.iter().map(|subject| warm(plan, subject)).collect::<Outcome<Vec<_>>>()?;
    let map_rows = source_map(plan)?;
    let chosen = || synthetic.iter().filter(|subject| COLD.contains(&&*subject.name)).chain(&real);
    let (cold_rows, not_cold) = match chosen().map(|subject| cold(plan, subject)).collect::<Outcome<Vec<_>>>() {
        Ok(rows) => (rows, String::new()),
        Err(error) => (Vec::new(), format!("No cold loads: {error}\n")),
    };
    let memory_subject =
        real.iter().find(|subject| subject.name == "resvg").or(synthetic.last()).ok_or("no subject")?;
    let (memory, memory_csv) = memory::measure(memory_subject)?;

    let lookup = lookup::measure(plan.budget)?;
    let published: Vec<_> = synthetic.iter().filter(|subject| COLD.contains(&&*subject.name)).cloned().collect();

    let blocks = [
        ("machine", format!("{machine}, at the end {}.\n", machine::load_average())),
        ("load synthetic", report::loads(&synthetic_rows)),
        ("load real", report::loads(&real_rows)),
        ("ratio synthetic", report::ratios(&synthetic_rows)),
        ("ratio real", report::ratios(&real_rows)),
        ("touch synthetic", report::touched(&synthetic_rows)),
        ("touch real", report::touched(&real_rows)),
        ("seal", report::seals(&synthetic_rows) + &report::seals(&real_rows)),
        ("source map", report::loads(&map_rows) + &report::seals(&map_rows)),
        ("cold", not_cold + &report::touched(&cold_rows)),
        ("memory", memory),
        ("lookup", lookup),
        ("registry", registry::measure(plan.budget)?),
        ("publish", publish::measure(&published, plan.budget)?),
    ];
    for (name, block) in &blocks {
        println!("# {name}\n\n{block}");
    }

    fs::create_dir_all(&plan.results)?;
    let write = |name: &str, text: String| fs::write(plan.results.join(name), text);
    let csv = [("warm", &synthetic_rows), ("warm", &real_rows), ("source map", &map_rows), ("cold", &cold_rows)];
    let csv: String = csv.into_iter().map(|(measure, rows)| report::csv(rows, measure)).collect();
    write("performance.csv", report::CSV_HEADER.to_owned() + &csv)?;
    write("performance-memory.csv", memory::CSV_HEADER.to_owned() + &memory_csv)?;
    write("performance.svg", plot::draw("Time until stored code can be executed", &synthetic_rows))?;
    if !real_rows.is_empty() {
        write("performance-real.svg", plot::draw("Time until real modules can be executed", &real_rows))?;
    }
    let page = plan.results.join("performance.md");
    if page.exists() { document::fill(&page, &blocks) } else { Ok(()) }
}

/// The synthetic subjects that are loaded cold and published as well.
const COLD: [&str; 3] = ["4 KB", "1 MB", "16 MB"];

fn warm(plan: &Plan, subject: &Subject) -> Outcome<Row> {
    let ways = ways::of(subject)?;
    let cells = warm_cells(plan, subject, &ways)?;
    Ok(Row::new(&subject.name, subject.length, &ways, cells))
}

/// Files are read into the page cache anew some times, since where they lie in memory makes a difference. A way loads before
/// each load that is timed: it finds in the caches of the processor what it left there itself, and not what another did.
fn warm_cells(plan: &Plan, subject: &Subject, ways: &[Way]) -> Outcome<Vec<Cell>> {
    check(subject, ways)?;
    measure::parts(ways, plan.budget, |way| cold::warm(&way.file), |way| (way.load)().map(drop))
}

fn cold(plan: &Plan, subject: &Subject) -> Outcome<Row> {
    let ways = ways::of(subject)?;
    let ways: Vec<_> = ways.into_iter().filter(|way| !IN_MEMORY.contains(&way.name)).collect();
    check(subject, &ways)?;
    let cells = measure::row(&ways, plan.budget, |way| cold::evict(&way.file))?;
    Ok(Row::new(&subject.name, subject.length, &ways, cells))
}

/// Ways that read no file.
const IN_MEMORY: [&str; 1] = ["wasmtime, memory"];

/// The same code without a source map, with one of a page or two, and with one of a million rows, in the same rounds: reading the
/// rows leaves less in the caches for whoever comes next.
fn source_map(plan: &Plan) -> Outcome<Vec<Row>> {
    let subjects = [("4 MB, no map", 0), ("4 MB, 300 rows", 300), ("4 MB, a million rows", 1_000_000)];
    let subjects = subjects.map(|(name, rows)| Subject::synthetic(name, 4 << 20, rows));
    let subjects = subjects.into_iter().collect::<Outcome<Vec<_>>>()?;
    let mut ways = Vec::new();
    for subject in &subjects {
        ways.extend(ways::of(subject)?.into_iter().filter(|way| way.kind == Kind::Ours));
    }
    let mut cells = warm_cells(plan, &subjects[0], &ways)?;
    let split = |(at, subject): (usize, &Subject)| {
        let each = ways.len() / subjects.len();
        Row::new(&subject.name, subject.length, &ways[at * each..], cells.drain(..each).collect())
    };
    Ok(subjects.iter().enumerate().map(split).collect())
}

/// Sees each way load the code of `subject`.
fn check(subject: &Subject, ways: &[Way]) -> Outcome<()> {
    eprintln!("{} ...", subject.name);
    let code = fs::read(subject.code_file())?;
    ways.iter().try_for_each(|way| ways::check(way, &code))
}
