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

/// Whatever the file is, it is shown, explained, disassembled and drawn, or refused, without a panic and without a
/// character that a terminal takes for more than a letter.
pub(crate) fn any_file(file: &[u8]) {
    let scratch = Scratch::in_memory();
    let key = "ab".repeat(32);
    // Those that have its magic and version; of another engine, or none, one.
    let fits = |directory: &&&str| {
        let version = directory.split('-').nth(1).unwrap_or_default();
        let magic_fits = directory.starts_with("wazero") == file.starts_with(b"WAZEVO");
        magic_fits && file.get(7..).is_some_and(|rest| rest.starts_with(version.as_bytes()))
    };
    let mut directories: Vec<_> = DIRECTORIES.iter().filter(fits).collect();
    if directories.is_empty() {
        directories.push(&DIRECTORIES[usize::from(file.first().copied().unwrap_or_default()) % DIRECTORIES.len()]);
    }
    for directory in directories {
        let directory = scratch.path().join(directory);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(&key), file).unwrap();
        let (directory, svg) = (directory.to_str().unwrap(), scratch.path().join("svg"));
        let svg = svg.to_str().unwrap();
        for (command, width) in [
            (&["list", directory][..], 60),
            (&["show", directory, &key, "--svg", svg], 80),
            (&["show", directory, &key, "--json"], 0),
            (&["why", directory, &key], 50),
            (&["disasm", directory, &key, "--source", svg], 0),
            (&["disasm", directory, &key, "--json"], 0),
        ] {
            let (code, printed) = in_process(command, Some(width).filter(|width| *width > 0));
            assert!(code <= 2, "{command:?}");
            assert_clean(&printed);
        }
        if let Ok(picture) = fs::read_to_string(svg) {
            assert_clean(&picture);
        }
    }
}

fn in_process(command: &[&str], width: Option<usize>) -> (u8, String) {
    let printed = Printed::default();
    let [out, beside] = [&printed, &printed].map(|printed| Box::new(Printed(Arc::clone(&printed.0))));
    let screen = Screen { out, is_terminal: true, beside, is_beside_terminal: false, width };
    let arguments = ["jitcache", "--color", "never"].iter().chain(command);
    let code = run(&Arguments::try_parse_from(arguments).unwrap(), screen);
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
