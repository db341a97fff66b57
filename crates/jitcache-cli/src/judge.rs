//! What an entry is, whichever engine's: sound, or what is wrong with it.

use std::ops::Range;

use clap::ValueEnum;
use jitcache::error::Field;
use jitcache::{CpuFeatures, Entry, Error, Identity, Key, MacKey, Revision, Sealing, Target};

use crate::out::Paint;

/// The key for parsing what is sealed with a MAC when no key was given: everything but the MAC can be looked at.
pub(crate) const NO_KEY: MacKey = MacKey::new([0; 32]);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum State {
    /// Its lengths and its seal fit; its bytes were not checked
    Whole,
    /// Every byte was checked
    Sound,
    /// It is sealed with a MAC, whose key was not given
    Unverified,
    /// It is for another machine
    Foreign,
    /// Another version of the engine wrote it
    Stale,
    /// Its layout is not known, or not for certain
    UnknownLayout,
    /// It is damaged, or no entry
    Unsound,
    /// It cannot be read
    Unreadable,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Sound => "sound",
            Self::Unverified => "unverified",
            Self::Foreign => "foreign",
            Self::Stale => "stale",
            Self::UnknownLayout => "unknown-layout",
            Self::Unsound => "unsound",
            Self::Unreadable => "unreadable",
        }
    }

    pub(crate) const fn paint(self) -> Paint {
        match self {
            Self::Whole | Self::Sound => Paint::Good,
            Self::Foreign | Self::Stale | Self::UnknownLayout | Self::Unverified => Paint::Odd,
            Self::Unsound | Self::Unreadable => Paint::Bad,
        }
    }

    /// Returns whether an engine could not use the entry though it is for it.
    pub(crate) const fn is_bad(self) -> bool {
        matches!(self, Self::Unsound | Self::Unreadable)
    }

    const fn of(error: &Error) -> Self {
        match error {
            Error::Stale { .. } => Self::Stale,
            Error::UnknownLayout { .. } => Self::UnknownLayout,
            error if error.is_rejection() => Self::Unsound,
            _ => Self::Unreadable,
        }
    }
}

type Fields = Vec<(Field, Range<u64>)>;

/// What was found out about an entry; `None` in its place if the entry has vanished.
pub(crate) struct Judged {
    pub(crate) state: State,
    pub(crate) error: Option<Error>,
    pub(crate) identity: Option<Identity>,
    pub(crate) fields: Fields,
}

impl Judged {
    pub(crate) fn failed(error: Error, identity: Option<Identity>) -> Self {
        Self { state: State::of(&error), error: Some(error), identity, fields: Vec::new() }
    }

    /// Returns the number of functions.
    pub(crate) fn functions(&self) -> Option<u64> {
        if self.fields.is_empty() {
            return None;
        }
        let offsets = self.fields.iter().find(|(field, _)| *field == Field::FunctionOffsets);
        offsets.map_or(Some(0), |(_, range)| range.end.saturating_sub(range.start).checked_div(8))
    }
}

/// Returns whether this machine can run code of an identity that was found.
pub(crate) fn runs_here(identity: &Identity) -> bool {
    identity.target() == Target::host()
        && (*identity.sealing() == Sealing::Plain || identity.cpu().missing_from(CpuFeatures::host()).is_empty())
}

/// Returns the identity of an entry in a directory of that name.
pub(crate) fn identify(directory: &str, file: &[u8], mac_key: Option<&MacKey>) -> Option<Identity> {
    Identity::of_entry(directory, file, mac_key.unwrap_or(&NO_KEY))
}

/// Checks every byte of an entry that lies in a directory of that name.
pub(crate) fn judge(directory: &str, file: &[u8], key: &Key, mac_key: Option<&MacKey>) -> Judged {
    let Some(identity) = identify(directory, file, mac_key) else {
        return Judged { state: State::Unreadable, error: None, identity: None, fields: Vec::new() };
    };
    let checked = match check(file, &identity, key, mac_key) {
        Err(error) if error.is_rejection() => in_another_revision(file, &identity, key, mac_key).ok_or(error),
        checked => checked,
    };
    match checked {
        Ok((state, fields)) => Judged { state, error: None, identity: Some(identity), fields },
        Err(error) => Judged::failed(error, Some(identity)),
    }
}

fn check(file: &[u8], identity: &Identity, key: &Key, mac_key: Option<&MacKey>) -> Result<(State, Fields), Error> {
    let entry = Entry::parse(file, identity)?;
    entry.check_key(key)?;
    match entry.verify() {
        // Without the key there is nothing to compare the MAC with.
        Err(Error::Forged { .. }) if mac_key.is_none() => Ok((State::Unverified, entry.fields())),
        Err(error) => Err(error),
        Ok(()) if runs_here(identity) => Ok((State::Sound, entry.fields())),
        Ok(()) => Ok((State::Foreign, entry.fields())),
    }
}

/// Checks what is rejected in the other revisions: of engines but wazero's releases, no name tells theirs.
///
/// A seal vouches for the revision under which it fits. A plain entry may be cut so that it is whole in another one.
fn in_another_revision(
    file: &[u8],
    identity: &Identity,
    key: &Key,
    mac_key: Option<&MacKey>,
) -> Option<(State, Fields)> {
    if identity.name() == "wazero" && identity.revision() != Revision::Unknown {
        return None;
    }
    [Revision::SourceMap, Revision::CatchClauses, Revision::Locals].into_iter().find_map(|revision| {
        let (state, fields) = check(file, &identity.clone().with_revision(revision), key, mac_key).ok()?;
        let is_plain = *identity.sealing() == Sealing::Plain;
        Some((if is_plain { State::UnknownLayout } else { state }, fields))
    })
}
