//! How long it takes until stored code can be executed, in the ways of this crate and in others.
//!
//! `cargo run --release -- --help` tells the options.

mod cold;
mod document;
mod first;
mod floors;
mod library;
mod linked;
mod lookup;
mod machine;
mod many;
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
mod rows;
mod subject;
mod way;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plot::Axis;
use report::Row;
use subject::Subject;
use way::Outcome;

const HELP: &str = "usage: cargo run --release [--features peers] -- [--quick | --full]

  --quick   a minute, for a look; results go to target/bench/results
  (none)    some minutes; results go to ../docs
  --full    the same with five times the runs

The real modules take part if ./fetch was run, and then a run with the feature `peers`.";

/// How much is measured, and where it is written.
struct Plan {
    name: &'static str,
    /// Time for each way of each row.
    budget: Duration,
    /// Bytes of code.
    largest: usize,
    /// Modules in one process, and how often they are loaded.
    many: (usize, usize),
    /// Processes for each way.
    processes: usize,
    results: PathBuf,
}

impl Plan {
    fn new(options: &[String]) -> Option<Self> {
        let (name, millis) = match options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => ("An ordinary run", 1000),
            ["--full"] => ("A full run", 5000),
            ["--quick"] => ("A quick run", 40),
            _ => return None,
        };
        let (quick, budget) = (millis < 1000, Duration::from_millis(millis));
        Some(if quick {
            let results = subject::work_directory().join("results");
            Self { name, budget, largest: 16 << 20, many: (10_000, 1), processes: 30, results }
        } else {
            Self {
                name,
                budget,
                largest: 64 << 20,
                many: (100_000, 3),
                processes: 200,
                results: package().join("../docs"),
            }
        })
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
    match options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [memory::CHILD, subject, way] => return memory::child(subject, way),
        [first::CHILD, subject, way] => return first::child(subject, way),
        [many::CHILD, count, way] => return many::child(count, way),
        _ => {}
    }
    let Some(plan) = Plan::new(&options) else {
        println!("{HELP}");
        return Ok(());
    };
    run(&plan)
}

fn run(plan: &Plan) -> Outcome<()> {
    let machine = machine::describe();
    let entries = ways::of_entries();
    let sizes = SIZES.into_iter().filter(|(_, length)| *length <= plan.largest);
    let synthetic = sizes.map(|(name, length)| Subject::synthetic(name, length)).collect::<Outcome<Vec<_>>>()?;
    let mut real = Vec::new();
    for name in subject::REAL {
        #[cfg(feature = "peers")]
        peers::compile(name)?;
        // Without the peers there are those that an earlier run left.
        real.extend(Subject::open(name).ok());
    }
    synthetic.iter().chain(&real).try_for_each(|subject| subject.write_entries(&entries, 0))?;

    let warm = |subject| rows::warm(plan.budget, subject);
    let synthetic_rows = synthetic.iter().map(warm).collect::<Outcome<Vec<_>>>()?;
    let real_rows = real.iter().map(warm).collect::<Outcome<Vec<_>>>()?;
    let map_rows = rows::source_map(plan.budget)?;
    let some = || synthetic.iter().filter(|subject| SOME.contains(&&*subject.name));
    let cold = |subject| rows::cold(plan.budget, subject);
    let (cold_rows, not_cold) = match some().chain(&real).map(cold).collect::<Outcome<Vec<_>>>() {
        Ok(rows) => (rows, String::new()),
        Err(error) => (Vec::new(), format!("No cold loads: {error}\n")),
    };
    let first: Vec<_> = some().take(2).chain(real.first()).collect();
    let first = first::measure(&first, plan.processes)?;
    let memory_subject =
        real.iter().find(|subject| subject.name == "resvg").or(synthetic.last()).ok_or("no subject")?;
    let (memory, memory_csv) = memory::measure(memory_subject)?;
    let many = many::measure(plan.many.0, plan.many.1)?;
    let lookup = lookup::measure(plan.budget)?;
    let published = publish::measure(&some().cloned().collect::<Vec<_>>(), plan.budget)?;

    fs::create_dir_all(&plan.results)?;
    let write = |name: &str, text: &str| fs::write(plan.results.join(name), text);
    write("performance.svg", &plot_sizes(&synthetic_rows)?)?;
    write("performance-modules.svg", &plot_modules(&many)?)?;
    let mut real_loads = "No real modules: they take part after `./fetch`, with the feature `peers`.".to_owned();
    if !real_rows.is_empty() {
        write("performance-real.svg", &plot_real(&real_rows)?)?;
        real_loads = "![Time of the real modules, a line for each way](performance-real.svg)\n\n".to_owned();
        real_loads += &report::loads(&real_rows);
    }
    let kinds = [("warm", &synthetic_rows), ("warm", &real_rows), ("source map", &map_rows), ("cold", &cold_rows)];
    let csv: String = kinds.into_iter().map(|(measure, rows)| report::csv(rows, measure)).collect();
    write("performance.csv", &(report::CSV_HEADER.to_owned() + &csv))?;
    write("performance-memory.csv", &(memory::CSV_HEADER.to_owned() + &memory_csv))?;
    write("performance-modules.csv", &many::csv(&many))?;

    let told = real_rows.first().or(synthetic_rows.iter().find(|row| row.subject == "1 MB"));
    let blocks = [
        ("machine", format!("{}: {machine}, at the end {}.", plan.name, machine::load_average())),
        ("load synthetic", report::loads(&synthetic_rows)),
        ("load real", real_loads),
        ("ratio synthetic", report::ratios(&synthetic_rows)),
        ("ratio real", report::ratios(&real_rows)),
        ("against", report::against(&synthetic_rows) + &report::against(&real_rows)),
        ("touch synthetic", report::touched(&synthetic_rows)),
        ("touch real", report::touched(&real_rows)),
        ("seal", report::seals(&synthetic_rows) + &report::seals(&real_rows)),
        ("source map", report::loads(&map_rows) + &report::seals(&map_rows)),
        ("cold", not_cold + &report::touched(&cold_rows)),
        ("cold against", report::against(&cold_rows)),
        ("first", first),
        ("memory", memory),
        ("many", many::table(&many)),
        ("lookup", lookup),
        ("registry", registry::measure(plan.budget)?),
        ("linked", linked::measure(plan.budget)?),
        ("publish", published),
        ("speed", told.and_then(report::summary).unwrap_or_default()),
    ];
    for (name, block) in &blocks {
        println!("# {name}\n\n{block}");
    }
    let docs = package().join("../docs");
    document::fill(&docs.join("performance.md"), &plan.results.join("performance.md"), &blocks)?;
    if plan.results == docs {
        let readme = package().join("../README.md");
        document::fill(&readme, &readme, &blocks)?;
    }
    Ok(())
}

/// The synthetic subjects that are also loaded cold, loaded by new processes, and published.
const SOME: [&str; 3] = ["4 KB", "1 MB", "16 MB"];

fn plot_sizes(rows: &[Row]) -> Outcome<String> {
    let marks = [(1 << 10, "1 KB"), (16 << 10, "16 KB"), (256 << 10, "256 KB"), (4 << 20, "4 MB"), (64 << 20, "64 MB")];
    let marks = marks.map(|(size, name)| (f64::from(size), name.to_owned())).to_vec();
    let axis = Axis { name: "size of the code", marks };
    plot::draw("Time until stored code can be executed", &axis, &report::lines(rows, |_, row| row.length as f64))
}

/// The modules stand at equal distances: their sizes are too much alike to be told apart.
fn plot_real(rows: &[Row]) -> Outcome<String> {
    let at = |place: usize, _: &Row| 10_f64.powi(i32::try_from(place).unwrap_or(i32::MAX));
    let name = |row: &Row| format!("{}, {}", row.subject, report::mebibytes(row.length));
    let marks = rows.iter().enumerate().map(|(place, row)| (at(place, row), name(row))).collect();
    let axis = Axis { name: "modules, by the size of their code", marks };
    plot::draw("Time until real modules can be executed", &axis, &report::lines(rows, at))
}

fn plot_modules(many: &[many::Figures]) -> Outcome<String> {
    let marks = many::COUNTS.map(|count| (count as f64, count.to_string())).to_vec();
    let axis = Axis { name: "modules of 1 KB in the process", marks };
    plot::draw("Time for each of many modules", &axis, &many::lines(many))
}
