//! What a loaded module takes up, in processes that do nothing else.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::report;
use crate::subject::Subject;
use crate::way::{Outcome, Way, touch};
use crate::ways;

pub const CHILD: &str = "--child";

/// How many processes load the same module, for what they share.
const PROCESSES: usize = 8;

/// Loads in one way when told to, and keeps what it loaded until it is told to end.
pub fn child(subject: &str, way: &str) -> Outcome<()> {
    let subject = Subject::open(subject)?;
    let way = ways::named(&subject, way)?;
    let mut told = std::io::stdin().lock();
    println!("ready");
    told.read_line(&mut String::new())?;
    let loaded = (way.load)()?;
    if let Some(code) = loaded.code() {
        touch(code);
    }
    println!("loaded");
    told.read_to_end(&mut Vec::new())?;
    Ok(())
}

struct Process {
    child: Child,
    /// What it took up before it loaded anything.
    before: HashMap<String, u64>,
}

impl Process {
    fn start(subject: &Subject, way: &Way) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([CHILD, &subject.name, way.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut process = Self { child, before: HashMap::new() };
        process.wait_for("ready\n")?;
        process.before = rollup(&process.child.id().to_string())?;
        Ok(process)
    }

    fn load(&mut self) -> Outcome<()> {
        self.child.stdin.as_mut().ok_or("no pipe")?.write_all(b"\n")?;
        self.wait_for("loaded\n")
    }

    fn wait_for(&mut self, word: &str) -> Outcome<()> {
        let mut line = String::new();
        // The child writes a line and waits, so there is nothing behind it that the buffer could swallow.
        BufReader::new(self.child.stdout.as_mut().ok_or("no pipe")?).read_line(&mut line)?;
        if line == word { Ok(()) } else { Err(format!("a child said {line:?} for {word:?}").into()) }
    }

    fn more(&self, what: &str) -> Outcome<u64> {
        let of = |counts: &HashMap<String, u64>| counts.get(what).copied().unwrap_or(0);
        Ok(of(&rollup(&self.child.id().to_string())?).saturating_sub(of(&self.before)))
    }
}

/// Returns what the system counts of a process, in KiB.
pub fn rollup(process: &str) -> Outcome<HashMap<String, u64>> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let lines = text.lines().filter_map(|line| line.strip_suffix(" kB")?.split_once(':'));
    Ok(lines.filter_map(|(name, value)| Some((name.into(), value.trim().parse().ok()?))).collect())
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Returns a table of what each way takes up, in MiB, and the lines for the file.
pub fn measure(subject: &Subject) -> Outcome<(String, String)> {
    let mut lines = Vec::new();
    let mut csv = String::new();
    for way in ways::of(subject, |_| true)? {
        let mut one = Process::start(subject, &way)?;
        one.load()?;
        let (resident, anonymous) = (one.more("Rss")?, one.more("Anonymous")?);
        drop(one);
        let mut all = (0..PROCESSES).map(|_| Process::start(subject, &way)).collect::<Outcome<Vec<_>>>()?;
        all.iter_mut().try_for_each(Process::load)?;
        let shared = all.iter().map(|process| process.more("Pss")).sum::<Outcome<u64>>()?;
        let mebibytes = |kibibytes: u64| format!("{:.1}", kibibytes as f64 / 1024.0);
        lines.push((way.name.into(), [resident, anonymous, shared].map(mebibytes).to_vec()));
        csv += &format!("{},{},\"{}\",{resident},{anonymous},{shared}\n", subject.name, subject.length, way.name);
    }
    let columns = ["resident", "of it private", "8 processes together"].map(String::from);
    Ok((report::table(&format!("{}, MiB", subject.name), &columns, &lines), csv))
}

pub const CSV_HEADER: &str = "subject,code_bytes,way,resident_kib,private_kib,eight_processes_kib\n";
