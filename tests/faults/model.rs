//! A power cut behind any step of a publication, in a model of a file system that promises nothing but what it was
//! asked to sync: the steps are those the system saw, and every state of the disk that they allow is loaded.

use std::fs;

use jitcache::{Lookup, Store};

use crate::child::Outcome;
use crate::content::{Before, Directory, LARGE, LEFT_OVER, age, code, file, identity, key};
use crate::scratch::Scratch;
use crate::skip;
use crate::strace::{self, Call};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Write(usize),
    SyncFile,
    Rename,
    SyncDirectory,
}

use Step::{Create, Rename, SyncDirectory, SyncFile, Write};

/// The steps of a publication, as the system saw them. `-y` tells what each descriptor is of.
fn steps(calls: &[Call]) -> Vec<Step> {
    let step = |call: &Call| match &*call.name {
        "openat" if call.line.contains("O_EXCL") && !call.line.contains("= -1") => Some(Create),
        "write" => Some(Write(call.line.rsplit("= ").next().unwrap().parse().unwrap())),
        "fsync" if !call.line.contains("-linux>") => Some(SyncFile),
        "fsync" => Some(SyncDirectory),
        "rename" => Some(Rename),
        _ => None,
    };
    calls.iter().filter_map(step).collect()
}

/// Where the file is after the power cut, if it is anywhere, and what it holds.
type Disk = (Option<&'static str>, Vec<u8>);

/// Every state in which `done` may leave the disk: what is not synced is there or not, and data is also torn, with
/// zeros where it did not arrive.
fn states(done: &[Step], new: &[u8]) -> Vec<Disk> {
    let synced = |what| done.iter().rposition(|&step| step == what);
    let written: usize = done.iter().map(|step| if let Write(bytes) = step { *bytes } else { 0 }).sum();
    let last_write = done.iter().rposition(|step| matches!(step, Write(_)));
    let mut data = vec![new[..written].to_vec()];
    if synced(SyncFile) < last_write || last_write.is_none() {
        let sample = if written > 1000 { 1237 } else { 1 };
        for arrived in (0..written).step_by(sample).chain([written.saturating_sub(1)]) {
            let zeros = vec![0; written - arrived];
            data.push(new[..arrived].to_vec());
            data.push([&new[..arrived], &zeros].concat());
            data.push([&vec![0; arrived], &new[arrived..written]].concat());
        }
    }
    let renamed = done.contains(&Rename);
    let places: &[_] = match (done.contains(&Create), renamed) {
        (false, _) => &[None],
        (true, false) => &[None, Some("temporary")],
        (true, true) if synced(SyncDirectory) > synced(Rename) => &[Some("entry")],
        (true, true) => &[None, Some("temporary"), Some("entry")],
    };
    places.iter().flat_map(|&place| data.iter().map(move |data| (place, data.clone()))).collect()
}

/// What loading came to: hits of the old and the new entry, misses, rejections - in all states, and in the last ones.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    old: usize,
    new: usize,
    missed: usize,
    rejected: usize,
}

impl Tally {
    fn count(&self) -> usize {
        self.old + self.new + self.missed + self.rejected
    }
}

/// Cuts the power behind every step and loads; returns the tally of all states, and that of the states after the last
/// step.
fn cut(steps: &[Step], n: u64, old: bool) -> (Tally, Tally) {
    let (scratch, new) = (Scratch::in_memory(), file(n, 1));
    let store = Store::open(scratch.path(), identity()).unwrap();
    let temporary = store.directory().join(LEFT_OVER);
    fs::create_dir(store.directory().join("tmp")).unwrap();
    let (mut all, mut last) = (Tally::default(), Tally::default());
    for end in 0..=steps.len() {
        for (place, data) in states(&steps[..end], &new) {
            let _ = fs::remove_file(store.path(&key(n)));
            if old {
                fs::write(store.path(&key(n)), file(n, 0)).unwrap();
            }
            match place {
                Some("entry") => fs::write(store.path(&key(n)), data).unwrap(),
                Some(_) => fs::write(&temporary, data).unwrap(),
                None => {}
            }
            let lookup = store.load(&key(n)).unwrap();
            for tally in [Some(&mut all), (end == steps.len()).then_some(&mut last)].into_iter().flatten() {
                match &lookup {
                    Lookup::Hit(module) if module.code() == code(n, 1) => tally.new += 1,
                    Lookup::Hit(module) if old && module.code() == code(n, 0) => tally.old += 1,
                    Lookup::Miss => tally.missed += 1,
                    Lookup::Rejected(_) | Lookup::Stale(_) => tally.rejected += 1,
                    other => panic!("{place:?} after {:?}: {other:?}", &steps[..end]),
                }
            }
            if place == Some("temporary") {
                age(store.directory());
                assert_eq!(store.sweep().unwrap(), 1);
            }
        }
    }
    (all, last)
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_entry_or_the_new_one() {
    if !strace::works() {
        return skip("power cut, model", "strace does not work here");
    }
    let (outcome, calls) = strace::run("put", &Directory::new(Before::Nothing, false), None);
    assert_eq!(outcome, Outcome::Done);
    let recorded = steps(&calls);
    let large: Vec<_> = recorded.iter().filter(|step| !matches!(step, Write(_))).copied().collect();
    assert_eq!(large, [Create, SyncFile, Rename, SyncDirectory], "the steps of SPEC.md, section 6: {recorded:?}");
    let bytes: usize = recorded.iter().map(|step| if let Write(bytes) = step { *bytes } else { 0 }).sum();
    assert_eq!(bytes, file(LARGE, 1).len());
    // Small entries are written at once.
    let small = [Create, Write(file(1, 1).len()), SyncFile, Rename, SyncDirectory];
    for (n, steps) in [(LARGE, &recorded[..]), (1, &small)] {
        for old in [false, true] {
            let (all, last) = cut(steps, n, old);
            println!("entry {n}, {} before: {} states, {all:?}", if old { "one" } else { "none" }, all.count());
            assert_eq!((all.rejected, if old { all.missed } else { all.old }), (0, 0), "{all:?}");
            assert_eq!((last.new, last.count()), (1, 1), "an entry that was put stays");
        }
    }
}

/// What is checked when it is read needs no sync; what is not has one, whatever is asked for.
#[test]
fn a_put_that_is_lazy_syncs_nothing_and_makes_few_calls() {
    if !strace::works() {
        return skip("power cut, model", "strace does not work here");
    }
    let (outcome, calls) = strace::run("put-small 1", &Directory::new(Before::Nothing, false), None);
    assert_eq!(outcome, Outcome::Done);
    let size = file(1, 1).len();
    assert_eq!(steps(&calls), [Create, Write(size), Rename], "{calls:?}");
    // A build for debugging asks whether what it closes is open.
    let names: Vec<_> = calls.iter().map(|call| &*call.name).filter(|name| !matches!(*name, "brk" | "fcntl")).collect();
    assert!(names.len() <= 6, "{names:?}");
    for old in [false, true] {
        let (all, _) = cut(&[Create, Write(size), Rename], 1, old);
        assert!(all.new > 0 && all.rejected > 0, "a torn entry is rejected: {all:?}");
    }
    let unchecked = strace::run("put-unchecked 1", &Directory::new(Before::Nothing, false), None);
    let plain = strace::run("put-plain 1", &Directory::new(Before::Nothing, false), None);
    for (outcome, calls) in [unchecked, plain] {
        assert_eq!(outcome, Outcome::Done);
        let steps: Vec<_> = steps(&calls).into_iter().filter(|step| !matches!(step, Write(_))).collect();
        assert_eq!(steps, [Create, SyncFile, Rename, SyncDirectory]);
    }
}

/// So the test above can fail; and a reader is safe from writers that sync nothing.
#[test]
fn a_writer_that_does_not_sync_loses_entries_but_no_reader_takes_a_torn_one() {
    let size = file(1, 1).len();
    for (steps, torn, lost) in [
        (&[Create, Write(size), SyncFile, Rename][..], false, true),
        (&[Create, Write(size), Rename, SyncDirectory], true, false),
        (&[Create, Write(size), Rename], true, true),
        (&[Create, Write(size), Rename, SyncDirectory, SyncFile], true, false),
    ] {
        let (all, last) = cut(steps, 1, false);
        println!("{steps:?}: {} states, {all:?}", all.count());
        assert_eq!((all.rejected > 0, last.missed > 0), (torn, lost), "{steps:?}");
    }
}
