//! The ways to get code from a file into executable memory.

use crate::subject::{Seal, Subject};
use crate::way::{Outcome, Way};
use crate::{floors, library, ours};

/// The ways that read entries, each its own: one that shared a file with many would find more of it in the caches.
pub fn of_entries() -> Vec<(&'static str, Seal)> {
    let ours = ours::WAYS.into_iter().map(|(name, _, seal)| (name, seal));
    ours.chain(floors::WAYS.into_iter().map(|floor| (floor.name, floor.seal))).collect()
}

/// Returns every way that can load `subject` and whose name is `wanted`.
pub fn of(subject: &Subject, wanted: impl Fn(&str) -> bool) -> Outcome<Vec<Way>> {
    let mut ways = ours::ways(subject, &wanted)?;
    ways.extend(floors::ways(subject, &wanted)?);
    ways.extend(library::ways(subject, &wanted)?);
    #[cfg(feature = "peers")]
    ways.extend(crate::peers::ways(subject, &wanted)?);
    Ok(ways)
}

/// Returns the way of that name.
pub fn named(subject: &Subject, name: &str) -> Outcome<Way> {
    of(subject, |other| other == name)?.pop().ok_or_else(|| format!("no way {name:?}").into())
}
