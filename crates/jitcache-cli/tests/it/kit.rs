//! What the tests have in common: the program, caches to look into, and what was printed before.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use jitcache::entry::CatchClause;
use jitcache::{Arch, Builder, CpuFeatures, Identity, Key, MacKey, Os, Place, RelocationKind, Sealing, Store, Target};
use jitcache_testkit::scratch::Scratch;
use serde_json::Value;

use crate::any_file::assert_clean;

pub(crate) const AMD64: Target = Target { arch: Arch::Amd64, os: Os::host() };
pub(crate) const ARM64: Target = Target { arch: Arch::Arm64, os: Os::host() };

pub(crate) fn jitcache(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Output {
    command().args(arguments).output().unwrap()
}

/// Returns the program as it is without a terminal.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitcache"));
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

/// Compares what a command prints on a narrow terminal, no line of which is too long for it.
pub(crate) fn narrow(name: &str, root: &Path, arguments: &[&str], code: i32) {
    let output = command().env("COLUMNS", "80").args(arguments).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
    for line in printed.lines() {
        assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
    }
    // Another system's name has tables break elsewhere.
    if cfg!(target_os = "linux") {
        compare(&format!("{name}-narrow.txt"), &stable(&printed, root));
    }
}

/// Compares what a command prints, in both forms, with what it printed before.
pub(crate) fn snapshot(name: &str, root: &Path, arguments: &[&str], code: i32) {
    for (form, extra) in [("txt", &[][..]), ("json", &["--json"])] {
        let all: Vec<&str> = arguments.iter().chain(extra).copied().collect();
        let output = jitcache(&all);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{all:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        if form == "json" {
            serde_json::from_str::<Value>(&printed).unwrap();
        }
        compare(&format!("{name}.{form}"), &stable(&printed, root));
    }
}

pub(crate) fn compare(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, printed).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(of_linux(printed), of_linux(&expected), "{name}");
}

/// Takes out what another system prints otherwise than Linux: its name, which digests cover and tables are as wide as.
fn of_linux(printed: &str) -> String {
    if cfg!(target_os = "linux") {
        return printed.to_owned();
    }
    let printed = printed.replace(&here("linux"), "linux").replace("3, linux", "1, linux");
    if printed.starts_with("<svg") {
        // Texts stand where there is room.
        return printed.split('<').filter_map(|tag| Some(tag.split_once('>')?.1)).collect();
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = printed.split_inclusive(|c| !is_word(c)).map(|word| {
        let (letters, rest) = word.split_at(word.trim_end_matches(|c| !is_word(c)).len());
        let is_digest = matches!(letters.len(), 16 | 64) && letters.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest { format!("DIGEST{rest}") } else { word.to_owned() }
    });
    words.collect::<String>().split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Takes out what is another each time: where the scratch directory lies, and the time.
pub(crate) fn stable(printed: &str, root: &Path) -> String {
    let root = root.to_str().unwrap();
    let in_json = Value::from(root).to_string();
    let mut printed = printed.replace(in_json.trim_matches('"'), "DIR").replace(root, "DIR");
    if cfg!(windows) {
        let mut parts = printed.split("DIR");
        let first = parts.next().unwrap().to_owned();
        printed = parts.fold(first, |before, part| {
            let (path, rest) = part.split_at(part.find([' ', '"', ':', '\n']).unwrap_or(part.len()));
            format!("{before}DIR{}{rest}", path.replace("\\\\", "/").replace('\\', "/"))
        });
    }
    for name in ["\"modified\":", "\"age_seconds\":", "\"youngest_seconds\":", "\"oldest_seconds\":"] {
        let mut parts = printed.split(name);
        let first = parts.next().unwrap().to_owned();
        printed = parts.fold(first, |before, part| {
            format!("{before}{name}0{}", part.trim_start_matches(|c: char| c.is_ascii_digit()))
        });
    }
    printed
}

/// Gives every file below a directory the same age.
pub(crate) fn age(root: &Path) {
    let used = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60 + 1800);
    for path in files(root) {
        if path.is_file() && !path.is_symlink() {
            File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(used)).unwrap();
        }
    }
}

/// Returns all that lies below a directory.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

/// Returns a name of Linux as it is on the system that the test runs on. What wazero keeps has the same bytes there.
pub(crate) fn here(name: &str) -> String {
    name.replace("linux", Os::host().name())
}

pub(crate) fn golden() -> Scratch {
    let scratch = Scratch::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    for path in files(&from) {
        let name = path.strip_prefix(&from).unwrap();
        if name.to_str().unwrap().starts_with("wazero-") && path.is_file() {
            let to = scratch.path().join(here(name.to_str().unwrap()));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, to).unwrap();
        }
    }
    age(scratch.path());
    scratch
}

pub(crate) fn mac_key() -> MacKey {
    MacKey::new([7; 32])
}

pub(crate) fn engine(sealing: Sealing) -> Identity {
    let name = if sealing == Sealing::Checksum { "engine" } else { "signed" };
    let identity = Identity::new(name, *b"ENGINE", "1.0").unwrap().with_target(AMD64).with_sealing(sealing);
    identity.with_cpu(CpuFeatures::baseline(Arch::Amd64)).with_sections(&[5]).with_build_id(b"build 1").unwrap()
}

pub(crate) fn entry(identity: &Identity, number: u8) -> (Key, Vec<u8>) {
    let key = Key::from_bytes([number; 32]);
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 64]).function(0).source(0, 12).function(32).source(32, 40);
    builder.section(5, true, b"required").metadata(b"of the engine's");
    let file = builder.finish(identity, &key).unwrap().to_vec();
    (key, file)
}

pub(crate) fn sealed() -> Scratch {
    let scratch = Scratch::new();
    for sealing in [Sealing::Checksum, Sealing::Mac(mac_key())] {
        let identity = engine(sealing);
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        for number in [0x10, 0x20] {
            let (key, file) = entry(&identity, number + u8::from(*identity.sealing() == Sealing::Checksum));
            store.put(&key, &jitcache::Entry::parse(&file, &identity).unwrap()).unwrap();
        }
    }
    fs::write(scratch.path().join("mac"), [7; 32]).unwrap();
    age(scratch.path());
    scratch
}

/// Makes entries that import and have data, of both architectures that can be disassembled: under keys that begin with
/// c1 and c2. Beside them stands their source.
pub(crate) fn linked() -> Scratch {
    let scratch = Scratch::new();
    let amd64 = [
        0x53, // push rbx
        0x48, 0x8d, 0x1d, 0, 0, 0, 0, // lea rbx, [table]
        0x48, 0x8b, 0x1b, // mov rbx, [rbx]
        0xe8, 0, 0, 0, 0, // call times
        0xff, 0x15, 0, 0, 0, 0, // call [slot of times]
        0x48, 0x8b, 0x1d, 0, 0, 0, 0, // mov rbx, [slot of counter]
        0xe8, 2, 0, 0, 0,    // call leaf
        0x5b, // pop rbx
        0xc3, // ret
        0x31, 0xc0, // xor eax, eax
        0xc3, // ret
        0x06, // none in 64 bits
    ];
    let words: [u32; 12] = [
        0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
        0x9000_0000, // adrp x0, table
        0x9100_0000, // add x0, x0, table
        0x9400_0000, // bl times
        0x9000_0008, // adrp x8, slot of times
        0xf940_0108, // ldr x8, [x8]
        0xd63f_0100, // blr x8
        0x9400_0003, // bl leaf
        0xa8c1_7bfd, // ldp x29, x30, [sp], #16
        0xd65f_03c0, // ret
        0xd65f_03c0, // ret
        0xffff_ffff, // none
    ];
    let arm64: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (target, code, leaf, number) in [(AMD64, &amd64[..], 36, 0xc1), (ARM64, &arm64, 40, 0xc2)] {
        let (identity, key) = (engine(Sealing::Checksum).with_target(target), Key::from_bytes([number; 32]));
        let identity = identity.with_cpu(CpuFeatures::baseline(target.arch));
        let mut builder = Builder::new();
        builder.code(code).function_named(0, leaf, "main").function_named(leaf, 3, "leaf <\u{1b}>");
        builder.source(0, 0).source(4, 12).source(8, 12).source(leaf, 30);
        builder.try_table(&[CatchClause { kind: 0, tag: 3 }, CatchClause { kind: 2, tag: 0 }]);
        let times = builder.import("env.times");
        let table = builder.data(&[0; 16], 8);
        let counter = builder.writable_data(&100_u64.to_le_bytes(), 8);
        builder.symbol(counter, 8, "counter").relocate(table, RelocationKind::Abs8, counter, 0);
        let at = |offset, kind, target, addend| (Place::Code(offset), kind, target, addend);
        let relocations = if target == AMD64 {
            vec![
                at(4, RelocationKind::X86PCRel4, table, -4),
                at(12, RelocationKind::X86CallPLTRel4, times, -4),
                at(18, RelocationKind::X86GOTPCRel4, times, -4),
                at(25, RelocationKind::X86GOTPCRel4, counter, -4),
            ]
        } else {
            vec![
                at(4, RelocationKind::Aarch64AdrPrelPgHi21, table, 0),
                at(8, RelocationKind::Aarch64AddAbsLo12Nc, table, 0),
                at(12, RelocationKind::Arm64Call, times, 0),
                at(16, RelocationKind::Aarch64AdrGotPage21, times, 0),
                at(20, RelocationKind::Aarch64Ld64GotLo12Nc, times, 0),
            ]
        };
        for (place, kind, target, addend) in relocations {
            builder.relocate(place, kind, target, addend);
        }
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        store.put(&key, &builder.finish(&identity, &key).unwrap()).unwrap();
    }
    fs::write(scratch.path().join("source"), "fn main() {\n    times(table);\n}\nfn leaf()\u{1b} {}\n").unwrap();
    age(scratch.path());
    scratch
}

/// Makes an entry with each fault, under a key that begins with a number of its own.
pub(crate) fn damaged() -> Scratch {
    let scratch = Scratch::new();
    let identity = engine(Sealing::Checksum);
    let directory = scratch.path().join(identity.directory_name());
    fs::create_dir(&directory).unwrap();
    let name = |number: u8| directory.join(Key::from_bytes([number; 32]).to_string());
    type Damage = fn(&mut Vec<u8>);
    let damages: [(u8, Damage); 8] = [
        (0x01, |_| {}),
        (0x02, |file| file.truncate(20)),
        (0x03, |file| file[60] ^= 1),
        (0x04, |file| file.push(0)),
        (0x05, |file| file[7] = b'9'),
        (0x06, |file| file.clear()),
        (0x07, |file| {
            let at = file.len() - 80;
            file[at] ^= 1;
        }),
        (0x08, |file| {
            let at = file.len() - 1;
            file[at] = b'2';
        }),
    ];
    for (number, damage) in damages {
        let (_, mut file) = entry(&identity, number);
        damage(&mut file);
        fs::write(name(number), file).unwrap();
    }
    // Renamed; for a processor that nobody has; from another directory.
    fs::write(name(0x09), entry(&identity, 0x99).1).unwrap();
    let better = CpuFeatures::from_bits(Arch::Amd64, CpuFeatures::host().bits() | 1 << 127);
    fs::write(name(0x0a), entry(&identity.clone().with_cpu(better), 0x0a).1).unwrap();
    fs::write(name(0x0b), entry(&identity.clone().with_target(ARM64), 0x0b).1).unwrap();
    fs::create_dir(name(0x0c)).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(name(0x01), name(0x0d)).unwrap();
    // A link takes a right there; neither is a file.
    #[cfg(windows)]
    fs::create_dir(name(0x0d)).unwrap();
    // wazero's: another engine's entry, and try tables in a layout that nobody knows.
    let wazero = scratch.path().join(here("wazero-dev-amd64-linux"));
    fs::create_dir(&wazero).unwrap();
    let (key, file) = entry(&identity, 0xa1);
    fs::write(wazero.join(key.to_string()), file).unwrap();
    let golden = golden();
    let catch = here("wazero-v1.12.0-amd64-linux/5923a7b0c0d3ea7502f7042e466883969cff4ee36a1d33ccdbd0294961a2e8ef");
    let mut file = fs::read(golden.path().join(catch)).unwrap();
    file.splice(6..14, *b"\x03dev");
    fs::write(wazero.join(Key::from_bytes([0xa2; 32]).to_string()), file).unwrap();
    age(scratch.path());
    scratch
}

/// Returns how much was printed, none of which a terminal takes for more than a letter.
pub(crate) fn length_of_clean(output: Output) -> usize {
    let printed = [output.stdout, output.stderr].map(|printed| String::from_utf8(printed).unwrap());
    printed.iter().for_each(|text| assert_clean(text));
    printed.iter().map(String::len).sum()
}
