//! `why`: why an entry is rejected here.

use std::path::Path;

use jitcache::{Access, CpuFeatures, Entry, Error, FileBytes, Identity, Key, MacKey, Target};
use serde_json::json;

use crate::Outcome;
use crate::arguments::Why;
use crate::entries::{Cache, State, identify, judge};
use crate::out::{Failure, Out};
use crate::verify::error_json;

pub(crate) fn run(why: &Why, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    match &why.key {
        Some(beginning) => {
            let cache = Cache::open(&why.path)?;
            cache.tell_passed_over();
            match cache.find(beginning)? {
                Some(found) => tell(&cache.path(found), cache.directory(found), found.key, mac_key, out),
                None => {
                    let remedy = "Nothing was stored under such a key, or it was removed: compile, and compare what the \
                                  key is made of.";
                    answer("miss", None, Some(remedy), out)
                }
            }
        }
        None => {
            let path = &why.path;
            let real = std::fs::canonicalize(path).map_err(|error| Failure::io("look into", path, &error))?;
            let name = |path: Option<&Path>| Some(path?.file_name()?.to_str()?.to_owned());
            let key = name(Some(path)).and_then(|name| name.parse().ok());
            let key = key.ok_or_else(|| {
                Failure::Usage(format!("{}: no entry has such a name: that is 64 hexadecimal digits", path.display()))
            })?;
            let directory = name(real.parent()).unwrap_or_default();
            tell(path, &directory, key, mac_key, out)
        }
    }
}

fn tell(path: &Path, directory: &str, key: Key, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let file = match FileBytes::open(path, Access::READ) {
        Ok(Some(file)) => file,
        Ok(None) => return answer("miss", None, Some("It has vanished: compile."), out),
        Err(error) if error.is_rejection() => return answer(State::Unsound.name(), Some(&error), None, out),
        Err(error) => return answer(State::Unreadable.name(), Some(&error), None, out),
    };
    if identify(directory, &file, mac_key).is_none() {
        let rule = "is not named as an engine's directory is, <name>-<version>-<arch>-<os>";
        return Err(Failure::Usage(format!("{}: its directory, {directory}, {rule}", path.display())));
    }
    let judged = judge(directory, &file, &key, mac_key);
    // Another machine's entry is sound, and rejected here.
    let here = match (judged.state, &judged.identity) {
        (State::Foreign, Some(identity)) => rejected_here(&file, identity),
        _ => None,
    };
    let error = judged.error.as_ref().or(here.as_ref());
    let remedy = (judged.state == State::Unverified).then_some("Give the key of the MAC with --mac-key-file.");
    answer(judged.state.name(), error, remedy, out)
}

/// Returns what a reader on this machine says of a sound entry.
fn rejected_here(file: &[u8], identity: &Identity) -> Option<Error> {
    if identity.target() != Target::host() {
        return Some(Error::Foreign { expected: Target::host(), found: identity.target() });
    }
    Entry::parse(file, &identity.clone().with_cpu(CpuFeatures::host())).err()
}

fn answer(state: &str, error: Option<&Error>, remedy: Option<&str>, out: &mut Out) -> Result<Outcome, Failure> {
    let remedy = remedy.or_else(|| error.map(Error::explain));
    if out.is_json {
        out.json(&json!({ "state": state, "error": error.map(error_json), "remedy": remedy }))?;
    } else {
        out.line(&format!("state   {state}"))?;
        if let Some(error) = error {
            out.line(&format!("error   {} ({})", error.name(), error.number()))?;
            out.line(&format!("reason  {error}"))?;
        }
        out.line(&format!("remedy  {}", remedy.unwrap_or("None is needed: it is not rejected.")))?;
    }
    Ok(Outcome::unsound_if(remedy.is_some()))
}
