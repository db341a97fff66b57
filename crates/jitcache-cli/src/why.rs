//! `why`: why an entry is rejected here, and why it was compiled though others like it were there.

use std::path::Path;

use jitcache::entry::{Difference, What};
use jitcache::{
    Access, CpuFeatures, Entry, Error, Explanation, FileBytes, Identity, Key, MacKey, Near, Recipe, Target,
};
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Why;
use crate::entries::{Cache, real};
use crate::judge::{State, identify, judge};
use crate::out::{Failure, Out};
use crate::table::Cell;
use crate::verify::error_json;

pub(crate) fn run(why: &Why, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    match &why.key {
        Some(beginning) => {
            let cache = Cache::open(&why.path, out)?;
            cache.tell_passed_over(out);
            match cache.find(beginning)? {
                Some(found) => tell(&cache.path(found), cache.directory(found), found.key, mac_key, out),
                None => {
                    let remedy = "Nothing was stored under such a key, or it was removed: compile, and compare what the \
                                  key is made of.";
                    answer("miss", None, Some(remedy), &Explanation::default(), out)
                }
            }
        }
        None => {
            let path = &why.path;
            let real = real(path).map_err(|error| Failure::io("look into", path, &error))?;
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
    let nothing = Explanation::default();
    let file = match FileBytes::open(path, Access::READ) {
        Ok(Some(file)) => file,
        Ok(None) => return answer("miss", None, Some("It has vanished: compile."), &nothing, out),
        Err(error) if error.is_rejection() => return answer(State::Unsound.name(), Some(&error), None, &nothing, out),
        Err(error) => return answer(State::Unreadable.name(), Some(&error), None, &nothing, out),
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
    let near = judged.identity.as_ref().map_or(nothing, |identity| near(path, &file, identity, out));
    answer(judged.state.name(), error, remedy, &near, out)
}

/// Returns the entries that come next to one that keeps a recipe: those that its engine might have hit in its place.
fn near(path: &Path, file: &[u8], identity: &Identity, out: &Out) -> Explanation {
    let recipe = Entry::parse(file, identity).and_then(|entry| Recipe::kept_by(&entry));
    let real = real(path).unwrap_or_default();
    let (Ok(Some(recipe)), Some(directory)) = (recipe, real.parent()) else { return Explanation::default() };
    let explained = Cache::store(directory, identity.clone()).and_then(|store| Ok(store.explain(&recipe)?));
    // What was asked of this entry is known without the others.
    let mut explanation = explained.unwrap_or_else(|failure| {
        if let Failure::Usage(reason) = failure {
            out.tell(&format!("others were not looked at: {reason}"));
        }
        Explanation::default()
    });
    explanation.nearest.retain(|near| !near.differences.is_empty());
    explanation
}

/// Returns what a reader on this machine says of a sound entry.
fn rejected_here(file: &[u8], identity: &Identity) -> Option<Error> {
    if identity.target() != Target::host() {
        return Some(Error::Foreign { expected: Target::host(), found: identity.target() });
    }
    Entry::parse(file, &identity.clone().with_cpu(CpuFeatures::host())).err()
}

fn answer(
    state: &str,
    error: Option<&Error>,
    remedy: Option<&str>,
    near: &Explanation,
    out: &mut Out,
) -> Result<Outcome, Failure> {
    let remedy = remedy.or_else(|| error.map(Error::explain));
    if out.is_json {
        let nearest: Vec<_> = near.nearest.iter().map(near_json).collect();
        out.json(&json!({ "state": state, "error": error.map(error_json), "remedy": remedy, "nearest": nearest }))?;
    } else {
        let mut fields = vec![("state", Cell::from(state))];
        if let Some(error) = error {
            fields.push(("error", format!("{} ({})", error.name(), error.number()).into()));
            fields.push(("reason", error.to_string().into()));
        }
        fields.push(("remedy", remedy.unwrap_or("None is needed: it is not rejected.").into()));
        for near in &near.nearest {
            fields.push(("near", format!("{} in {}", near.key, near.directory.display()).into()));
            fields.extend(near.differences.iter().map(|difference| ("", difference.to_string().into())));
        }
        out.record(fields.into_iter())?;
    }
    Ok(Outcome::unsound_if(remedy.is_some()))
}

fn near_json(near: &Near) -> Value {
    let difference = |difference: &Difference| {
        let Difference { what, name, wanted, found, .. } = difference;
        let part = match what {
            What::Setting => "setting",
            What::Flag => "flag",
            What::Source => "source",
            _ => "order",
        };
        json!({ "part": part, "name": name, "wanted": wanted, "found": found })
    };
    let differences: Vec<_> = near.differences.iter().map(difference).collect();
    json!({ "key": near.key.to_string(), "directory": near.directory.to_string_lossy(), "differences": differences })
}
