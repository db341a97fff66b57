//! Somebody edits, cuts, grows, replaces and swaps entries at full speed, in place, while others load them: what is
//! loaded is one of the contents whole, and everything else is rejected or missed.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jitcache::{Builder, Error, Identity, Lookup, Sealing, Store};

use crate::child::{self, Outcome};
use crate::content::{LARGE, code, identity, key};
use crate::long;
use crate::random::Random;
use crate::scratch::Scratch;

/// Two keys, of which one is of a large entry.
const KEYS: [u64; 2] = [LARGE, 5];

fn identity_of(plain: u64) -> Identity {
    identity().with_sealing(if plain == 1 { Sealing::Plain } else { Sealing::Checksum })
}

/// Loads both entries until told to stop, and says how that went.
pub fn child(root: &Path, plain: u64) -> Outcome {
    let store = Store::open(root, identity_of(plain)).unwrap();
    let codes = KEYS.map(|n| [0, 1].map(|generation| code(n, generation)));
    let (mut hits, mut misses, mut rejections, mut failures) = (0_u64, 0_u64, 0_u64, Vec::new());
    while !root.join("stop").exists() {
        for at in [0, 1, 0, 1, 0, 1, 0, 1] {
            child::hangs_after(10);
            // A plain entry does not say whose it is.
            let valid = if plain == 1 { &codes[..] } else { &codes[at..=at] };
            match store.load(&key(KEYS[at])) {
                Ok(Lookup::Hit(module)) if valid.as_flattened().iter().any(|code| code == module.code()) => hits += 1,
                Ok(Lookup::Miss) => misses += 1,
                Ok(Lookup::Rejected(_) | Lookup::Stale(_)) => rejections += 1,
                Err(error @ Error::Io { .. }) => failures.push(error.to_string()),
                _ => return Outcome::Wrong,
            }
        }
    }
    eprintln!(
        "{hits} hits, {misses} misses, {rejections} rejections, {} errors {:?}",
        failures.len(),
        failures.first()
    );
    if failures.is_empty() { Outcome::Done } else { Outcome::Io }
}

/// Makes a pipe or a socket.
fn special(path: &Path, kind: libc::mode_t) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends with a zero.
    assert_eq!(unsafe { libc::mknod(path.as_ptr(), kind | 0o600, 0) }, 0);
}

/// Does one thing to the entry at `path`, of which `valid` are the contents; `other` is another entry.
fn tamper(random: &mut Random, path: &Path, valid: &[Vec<u8>], other: &Path, spare: &Path) -> std::io::Result<()> {
    let file = &valid[random.below(valid.len() as u64) as usize];
    // A header and 21 zeros are an entry without code, and a plain one does not tell that it was cut.
    let empty = 7 + u64::from(file[6]) + 21;
    let at = Some(random.below(file.len() as u64)).filter(|at| *at != empty).unwrap_or(empty + 1);
    let open = || OpenOptions::new().write(true).open(path);
    match random.below(14) {
        0..4 => open()?.write_all_at(file, 0),
        4 => open()?.write_all_at(&file[at as usize..], at),
        5 => open()?.write_all_at(&[random.next() as u8], at),
        6 => open()?.set_len(at),
        7 => open()?.set_len(file.len() as u64 + at),
        8 => {
            fs::write(spare, file)?;
            fs::rename(spare, path)
        }
        9 => {
            fs::rename(path, spare)?;
            fs::rename(other, path)?;
            fs::rename(spare, other)
        }
        what => {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            match what {
                10 => symlink(other, path)?,
                11 => special(path, libc::S_IFIFO),
                12 => special(path, libc::S_IFSOCK),
                _ => fs::create_dir(path)?,
            }
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            File::create(path)?.write_all_at(file, 0)
        }
    }
}

/// `JITCACHE_LONG=1` goes on for two minutes instead of two seconds.
fn withstands(plain: u64) {
    let scratch = Scratch::in_memory();
    let identity = identity_of(plain);
    let store = Store::open(scratch.path(), identity.clone()).unwrap();
    let valid = KEYS.map(|n| {
        [0, 1].map(|generation| {
            let mut built = Builder::new();
            built.code(code(n, generation)).function(0).source(8, n);
            built.finish(&identity, &key(n)).unwrap().to_vec()
        })
    });
    let paths = KEYS.map(|n| store.path(&key(n)));
    let mut loader = child::command(&format!("load-forever {plain}"), scratch.path());
    let loaders = [0, 1].map(|_| loader.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let (mut random, mut tampered, mut failed) = (Random(std::process::id().into()), 0, 0);
    let end = Instant::now() + Duration::from_secs(if long() { 120 } else { 2 });
    while Instant::now() < end {
        let n = random.below(2) as usize;
        match tamper(&mut random, &paths[n], &valid[n], &paths[1 - n], &scratch.path().join("spare")) {
            Ok(()) => tampered += 1,
            // After a swap that failed there is nothing, until this.
            Err(_) => failed += usize::from(fs::write(&paths[n], &valid[n][0]).is_err()) + 1,
        }
    }
    fs::write(scratch.path().join("stop"), "").unwrap();
    for loader in loaders {
        let output = loader.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{tampered} changes, {failed} failed: {said}");
        assert_eq!(Outcome::of(output.status), Outcome::Done, "{said}");
    }
}

#[test]
fn a_sealed_entry_that_is_changed_while_it_is_loaded_is_whole_or_rejected() {
    withstands(0);
}

#[test]
fn the_code_of_a_plain_entry_that_is_changed_while_it_is_loaded_is_whole_or_rejected() {
    withstands(1);
}
