//! A publisher that is killed in front of any of its system calls leaves the old entry, the new one or none, touches
//! nothing else, and what it leaves behind is swept by the next one.

use crate::child::Outcome;
use crate::content::{Before, Directory, LARGE, file};
use crate::strace::Call;
use crate::{skip, strace};

/// Kills an action at each of its calls, and returns how many kills left what was there, the new entry and none.
fn survives(action: &str, befores: &[Before]) -> [usize; 3] {
    let (mut kills, mut old, mut new) = (0, 0, 0);
    for &before in befores {
        for company in [false, true] {
            let (outcome, calls) = strace::run(action, &Directory::new(before, company), None);
            assert_eq!(outcome, Outcome::Done);
            let hit = action == "cache" && before == Before::Valid;
            let renames = |call: &Call| call.name == "rename" && !call.line.contains("/tmp/tally\"");
            assert_eq!(calls.iter().any(renames), !hit, "{calls:#?}");
            for call in &calls {
                let case = format!("{action} with {before:?}, company {company}, killed at {} {}", call.name, call.nth);
                let directory = Directory::new(before, company);
                let how = format!("signal=KILL:when={}", call.nth);
                let (outcome, _) = strace::run(action, &directory, Some((&call.name, &how)));
                assert_eq!(outcome, Outcome::Killed, "{case}");
                kills += 1;
                match directory.entry() {
                    entry if entry == directory.before => old += 1,
                    entry if entry == Some(file(LARGE, 1)) => new += 1,
                    entry => assert!(entry.is_none() && before == Before::Corrupt, "{case}: neither old nor new"),
                }
                directory.check(&case);
            }
        }
    }
    println!("{action}: {kills} kills, {old} left what was there, {new} the new entry, {} none", kills - old - new);
    [old, new, kills - old - new]
}

const ALL: [Before; 3] = [Before::Nothing, Before::Valid, Before::Corrupt];

#[test]
fn a_put_that_is_killed_at_any_system_call_does_no_harm() {
    if !strace::works() {
        return skip("kill put", "strace does not work here");
    }
    let [old, new, none] = survives("put", &ALL);
    assert!(old > 0 && new > 0 && none == 0);
}

#[test]
fn an_engine_that_is_killed_at_any_system_call_does_no_harm() {
    if !strace::works() {
        return skip("kill engine", "strace does not work here");
    }
    let [old, new, none] = survives("cache", &ALL);
    assert!(old > 0 && new > 0 && none == 0);
}

#[test]
fn an_engine_that_is_killed_while_it_removes_a_bad_entry_does_no_harm() {
    if !strace::works() {
        return skip("kill removal", "strace does not work here");
    }
    let [old, new, none] = survives("judge", &[Before::Corrupt]);
    assert!(old > 0 && new == 0 && none > 0);
}
