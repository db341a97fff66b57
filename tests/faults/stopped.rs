//! A process is stopped behind any of its system calls, by a debugger or a freezer, and does not hold up another one:
//! that puts and sweeps as ever, and what it has put is there when the first goes on.

use std::fs;

use crate::child::{self, Outcome};
use crate::content::{Before, Directory, LARGE, age, file, put};
use crate::skip;
use crate::strace::{self, Call, Stopped};

fn does(action: &str, directory: &Directory, case: &str) {
    let output = child::command(action, directory.scratch.path()).output().unwrap();
    assert_eq!(Outcome::of(output.status), Outcome::Done, "{case}: {action} beside it");
}

/// Every system call of an action but the last, which is behind its end.
fn calls(action: &str, before: Before) -> Vec<Call> {
    let (outcome, calls) = strace::run(action, &Directory::new(before, true), None);
    assert_eq!(outcome, Outcome::Done);
    calls
}

#[test]
fn a_process_that_is_stopped_at_any_system_call_holds_up_no_other() {
    if !strace::works() {
        return skip("stopped", "strace does not work here");
    }
    let mut stops = 0;
    for (action, before) in [("put", Before::Valid), ("sweep", Before::Valid), ("judge", Before::Corrupt)] {
        for call in calls(action, before) {
            let case = format!("{action} stopped at {}", call.line);
            let directory = Directory::new(before, true);
            let stopped = Stopped::at(action, &directory, &call);
            does("put", &directory, &case);
            assert_eq!(directory.entry(), Some(file(LARGE, 1)), "{case}");
            // So long that its own file is swept.
            age(directory.store.directory());
            does("sweep", &directory, &case);
            assert_eq!(directory.temporaries(), 0, "{case}");
            assert_eq!(stopped.goes_on(), Outcome::Done, "{case}");
            assert_eq!(directory.entry(), Some(file(LARGE, 1)), "{case}: what was put meanwhile");
            directory.check(&case);
            stops += 1;
        }
    }
    println!("{stops} stops");
}

#[test]
fn a_put_whose_directories_vanish_at_any_system_call_makes_them_again() {
    if !strace::works() {
        return skip("vanishing", "strace does not work here");
    }
    let mut is_renamed = false;
    for call in calls("put", Before::Nothing) {
        let directory = Directory::new(Before::Nothing, true);
        let stopped = Stopped::at("put", &directory, &call);
        fs::remove_dir_all(directory.store.directory()).unwrap();
        let outcome = stopped.goes_on();
        is_renamed |= call.name == "rename";
        // What was published before is gone, and syncing what is no longer there may fail.
        if !is_renamed {
            assert_eq!(outcome, Outcome::Done, "{}", call.line);
            assert_eq!(directory.entry(), Some(file(LARGE, 1)), "{}", call.line);
        }
        assert!(matches!(outcome, Outcome::Done | Outcome::Io), "{}", call.line);
        put(&directory.store, LARGE, 0).unwrap();
        assert_eq!(directory.entry(), Some(file(LARGE, 0)), "{}", call.line);
    }
    assert!(is_renamed);
}

/// The writer has made its file, and the sweep has found it and is stopped somewhere.
#[test]
fn a_put_does_not_wait_for_a_sweep_that_is_stopped_over_its_file() {
    if !strace::works() {
        return skip("stopped", "strace does not work here");
    }
    let created = calls("put", Before::Nothing).into_iter().rfind(|call| call.line.contains("O_EXCL")).unwrap();
    let writing = || {
        let directory = Directory::new(Before::Nothing, true);
        let writer = Stopped::at("put", &directory, &created);
        age(directory.store.directory());
        (directory, writer)
    };
    let (directory, writer) = writing();
    let (outcome, calls) = strace::run("sweep", &directory, None);
    assert_eq!((outcome, writer.goes_on()), (Outcome::Done, Outcome::Done));
    for call in calls {
        let case = format!("sweep stopped at {}", call.line);
        let (directory, writer) = writing();
        let sweeper = Stopped::at("sweep", &directory, &call);
        assert_eq!(writer.goes_on(), Outcome::Done, "{case}");
        assert_eq!(directory.entry(), Some(file(LARGE, 1)), "{case}");
        put(&directory.store, LARGE, 0).unwrap();
        assert_eq!(sweeper.goes_on(), Outcome::Done, "{case}");
        assert_eq!(directory.entry(), Some(file(LARGE, 0)), "{case}");
        put(&directory.store, LARGE, 1).unwrap();
        directory.check(&case);
    }
}
