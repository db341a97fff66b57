//! Any file under an entry's name.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Parser;
use jitcache_cli::{Arguments, Screen, run};
use jitcache_testkit::scratch::Scratch;

/// Where engines keep entries, of both architectures that can be disassembled and of every layout.
const DIRECTORIES: [&str; 9] = [
    "wazero-v1.9.0-amd64-linux",
    "wazero-v1.12.0-amd64-linux",
    "wazero-v1.12.0-arm64-linux",
    "wazero-v1.12.1-0.20260714071631-236c2458ed22+dirty-arm64-linux",
    "wazero-dev-amd64-linux",
    "fuzz-1-amd64-linux",
    "fuzz-1-arm64-linux",
    "engine-1.0-amd64-linux",
    "engine-1.0-arm64-linux",
];

/// A place for a file, and the commands that look at it there.
pub(crate) struct AnyFile {
    scratch: Scratch,
    /// Those of each directory, with the width of the terminal. Reading arguments takes longer than most of them.
    commands: Vec<Vec<(Arguments, Option<usize>)>>,
}

impl AnyFile {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::in_memory();
        let svg = scratch.path().join("svg");
        let (svg, key) = (svg.to_str().unwrap(), key());
        let commands = DIRECTORIES.map(|directory| {
            let directory = scratch.path().join(directory);
            fs::create_dir(&directory).unwrap();
            let directory = directory.to_str().unwrap();
            let commands = [
                (&["list", directory][..], Some(60)),
                (&["show", directory, &key, "--svg", svg], Some(80)),
                (&["show", directory, &key, "--json"], None),
                (&["why", directory, &key], Some(50)),
                (&["disasm", directory, &key, "--source", svg], None),
                (&["disasm", directory, &key, "--json"], None),
            ];
            let parsed = commands.into_iter().map(|(command, width)| {
                let arguments = ["jitcache", "--color", "never"].iter().chain(command);
                (Arguments::try_parse_from(arguments).unwrap(), width)
            });
            parsed.collect()
        });
        Self { commands: commands.into(), scratch }
    }

    /// Whatever the file is, it is shown, explained, disassembled and drawn, or refused, without a panic and without a
    /// character that a terminal takes for more than a letter.
    pub(crate) fn look_at(&self, file: &[u8]) {
        // Those that have its magic and version; of another engine, or none, one.
        let fits = |directory: &str| {
            let version = directory.split('-').nth(1).unwrap_or_default();
            let magic_fits = directory.starts_with("wazero") == file.starts_with(b"WAZEVO");
            magic_fits && file.get(7..).is_some_and(|rest| rest.starts_with(version.as_bytes()))
        };
        let mut places: Vec<_> = (0..DIRECTORIES.len()).filter(|place| fits(DIRECTORIES[*place])).collect();
        if places.is_empty() {
            places.push(usize::from(file.first().copied().unwrap_or_default()) % DIRECTORIES.len());
        }
        for place in places {
            let path = self.scratch.path().join(DIRECTORIES[place]).join(key());
            fs::write(&path, file).unwrap();
            for (arguments, width) in &self.commands[place] {
                let (code, printed) = in_process(arguments, *width);
                assert!(code <= 2);
                assert_clean(&printed);
            }
            if let Ok(picture) = fs::read_to_string(self.scratch.path().join("svg")) {
                assert_clean(&picture);
            }
            fs::remove_file(path).unwrap();
        }
    }
}

fn key() -> String {
    "ab".repeat(32)
}

fn in_process(arguments: &Arguments, width: Option<usize>) -> (u8, String) {
    let printed = Printed::default();
    let [out, beside] = [&printed, &printed].map(|printed| Box::new(Printed(Arc::clone(&printed.0))));
    let code = run(arguments, Screen { out, is_terminal: true, beside, is_beside_terminal: false, width });
    let printed = printed.0.lock().unwrap().clone();
    (code, String::from_utf8(printed).expect("what is printed is text"))
}

pub(crate) fn assert_clean(text: &str) {
    let is_clean = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric();
    assert!(text.chars().all(is_clean), "{text:?}");
}

#[derive(Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
