//! Power cuts for real: an ext4 file system on a loop device, shut down as if the power went while two threads publish.
//! What `put` returned for is there after the journal is replayed, and nothing else loads but whole entries.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use jitcache::{Durability, Lookup, Store};

use crate::child::{self, Outcome};
use crate::content::{age, code, files, identity, key, put};
use crate::mount::{Mount, tool};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::{long, skip};

const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// Publishes entries from two threads until it cannot, and says of which it is sure. With an argument, it syncs
/// nothing.
pub fn child(root: &Path, lazy: u64) -> Outcome {
    let durability = if lazy == 1 { Durability::Lazy } else { Durability::Synced };
    // The power may be gone before it begins.
    let Ok(store) = Store::options(identity()).durability(durability).open(root) else { return Outcome::Done };
    thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for n in (1 + thread..4000).step_by(2) {
                    if put(store, n, 0).is_err() {
                        return;
                    }
                    std::io::stderr().write_all(format!("{n}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    Outcome::Done
}

#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    hits: usize,
    /// Of the acknowledged ones.
    lost: usize,
    rejected: usize,
    swept: usize,
}

/// Cuts the power once; `None` if that cannot be done here. `flags`: 0 as if synced, 1 the journal is, 2 nothing is.
fn crash(flags: u32, durability: Durability, milliseconds: u64, tally: &mut Tally) -> Option<()> {
    let scratch = Scratch::in_memory();
    let (image, at) = (scratch.path().join("image"), scratch.path().join("mount"));
    fs::create_dir(&at).unwrap();
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let image = image.to_str().unwrap();
    if !tool("mkfs.ext4", &["-q", "-F", image]) {
        return None;
    }
    let mount = Mount::new(&["-o", "loop", image], &at)?;
    let action = if durability == Durability::Lazy { "publish 1" } else { "publish" };
    let mut publisher = child::command(action, &at).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(milliseconds));
    let root = File::open(&at).unwrap();
    // SAFETY: the request reads an u32 from the pointer.
    let shut = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
    drop(root);
    // It ends by itself: nothing can be published any more.
    let mut said = String::new();
    publisher.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(Outcome::of(publisher.wait().unwrap()), Outcome::Done, "{said}");
    drop(mount);
    if shut != 0 {
        return None;
    }
    let _mount = Mount::new(&["-o", "loop", image], &at).expect("the journal can be replayed");
    let store = Store::open(&at, identity()).unwrap();
    let acknowledged: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    tally.acknowledged += acknowledged.len();
    for n in 1..4000 {
        let sure = acknowledged.contains(&n);
        match store.load(&key(n)).unwrap() {
            Lookup::Hit(module) if module.code() == code(n, 0) => tally.hits += 1,
            Lookup::Miss => tally.lost += usize::from(sure),
            Lookup::Rejected(_) => (tally.rejected, tally.lost) = (tally.rejected + 1, tally.lost + usize::from(sure)),
            other => panic!("entry {n}: {other:?}"),
        }
    }
    age(store.directory());
    tally.swept += store.sweep().unwrap();
    let files = files(store.directory());
    assert!(files.keys().all(|name| name.len() == 64), "{:?}", files.keys());
    Some(())
}

/// `JITCACHE_LONG=1` cuts the power a thousand times instead of twelve.
#[test]
fn a_power_cut_loses_no_entry_that_was_put_and_tears_none() {
    let mut random = Random(std::process::id().into());
    for flags in [0, 1, 2] {
        let (mut tally, crashes) = (Tally::default(), if long() { 334 } else { 4 });
        for _ in 0..crashes {
            if crash(flags, Durability::Synced, 30 + random.below(120), &mut tally).is_none() {
                return skip("power cut, real", "no ext4 can be mounted and shut down, or JITCACHE_MOUNT is not set");
            }
        }
        println!("flags {flags}: {crashes} crashes, {tally:?}");
        assert_eq!((tally.lost, tally.rejected), (0, 0), "flags {flags}: {tally:?}");
        assert!(tally.acknowledged > 0, "flags {flags}: nothing was put in time");
    }
}

/// So the test above can fail; and no reader takes what it leaves: an entry that does not load is missed or rejected.
#[test]
fn a_power_cut_makes_a_writer_that_does_not_sync_lose_entries_and_no_reader_takes_a_torn_one() {
    let mut tally = Tally::default();
    for (flags, crashes) in [(0, 1), (1, 4), (2, 4)] {
        for n in 0..if long() { 100 } else { crashes } {
            if crash(flags, Durability::Lazy, 30 + n % 7 * 15, &mut tally).is_none() {
                return skip("power cut, real", "no ext4 can be mounted and shut down, or JITCACHE_MOUNT is not set");
            }
        }
    }
    println!("without sync: {tally:?}");
    assert!(tally.lost > 0, "{tally:?}");
}
