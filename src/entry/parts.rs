//! What a key is made of, as it stands in an entry: a view, and whether it is sound.

use std::fmt;
use std::str;

use crate::error::{Bound, Error, Field};
use crate::format::{self, RecipePart, Run};

/// The numbers that stand for the kinds of a part.
const SETTING: u8 = 0;
const FLAG: u8 = 1;
const SOURCE: u8 = 2;

/// Length of what stands for a source: its length, and its SHA-256.
const SOURCE_SIZE: u64 = 40;

/// A part of what a key is made of. Returned by [`Parts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part<'a> {
    /// Something that the identity says, such as `version` or `CPU features`. SPEC.md lists the names.
    Setting {
        /// Its name.
        name: &'a str,
        /// What it is.
        value: &'a str,
    },
    /// What was handed to [`RecipeBuilder::flag`](crate::entry::RecipeBuilder::flag).
    Flag {
        /// Its name.
        name: &'a str,
        /// What it was set to.
        value: &'a str,
    },
    /// What was handed to [`RecipeBuilder::source`](crate::entry::RecipeBuilder::source).
    Source {
        /// How long it is, in bytes.
        length: u64,
        /// Its SHA-256.
        digest: [u8; 32],
    },
}

impl<'a> Part<'a> {
    /// Hands the part to `take` as it stands in a file.
    pub(super) fn with<T>(self, take: impl FnOnce(&RecipePart<'_>) -> T) -> T {
        let part = |kind, name: &str, value: &[u8]| {
            take(&RecipePart { kind, name: Run::new(name.as_bytes()), value: Run::new(value) })
        };
        match self {
            Self::Setting { name, value } => part(SETTING, name, value.as_bytes()),
            Self::Flag { name, value } => part(FLAG, name, value.as_bytes()),
            Self::Source { length, digest } => {
                let mut value = [0; 40];
                let (front, back) = value.split_at_mut(8);
                front.copy_from_slice(&length.to_le_bytes());
                back.copy_from_slice(&digest);
                part(SOURCE, "", &value)
            }
        }
    }

    fn of(part: &RecipePart<'a>) -> Result<Self, Error> {
        let &RecipePart { kind, name, value } = part;
        let wrong = |field, at, expected, found| Err(Error::Value { field, at, expected, found });
        // In front of each stands its length, and in front of that of the name the kind.
        let [name_length_at, value_length_at] = [name, value].map(|run| run.at().saturating_sub(8));
        match kind {
            SETTING => Ok(Self::Setting { name: text(name, Field::PartName)?, value: text(value, Field::PartValue)? }),
            FLAG => Ok(Self::Flag { name: text(name, Field::PartName)?, value: text(value, Field::PartValue)? }),
            SOURCE if name.length() > 0 => {
                wrong(Field::PartNameLength, name_length_at, Bound::Exactly(0), name.length())
            }
            SOURCE => match value.bytes().split_first_chunk() {
                Some((&length, digest)) if value.length() == SOURCE_SIZE => {
                    let digest = digest.first_chunk().copied().unwrap_or_default();
                    Ok(Self::Source { length: u64::from_le_bytes(length), digest })
                }
                _ => wrong(Field::PartValueLength, value_length_at, Bound::Exactly(SOURCE_SIZE), value.length()),
            },
            _ => wrong(Field::PartKind, name_length_at.saturating_sub(1), Bound::AtMost(SOURCE.into()), kind.into()),
        }
    }
}

/// Returns a run as text. Of what is none, the first byte is told that does not go on from those in front of it.
fn text(run: Run<'_>, field: Field) -> Result<&str, Error> {
    str::from_utf8(run.bytes()).map_err(|error| {
        let end = u64::try_from(error.valid_up_to()).unwrap_or(u64::MAX);
        let found = run.bytes().get(error.valid_up_to()).copied().unwrap_or_default();
        Error::Value { field, at: run.at().saturating_add(end), expected: Bound::Below(0x80), found: found.into() }
    })
}

/// The parts of what a key is made of, in the order in which they went in, read in place. Returned by
/// [`Entry::recipe`](crate::Entry::recipe) and [`Recipe::parts`](crate::Recipe::parts).
#[derive(Clone)]
pub struct Parts<'a> {
    run: Run<'a>,
    at: u64,
}

impl<'a> Parts<'a> {
    pub(super) const fn of(run: Run<'a>) -> Self {
        Self { run, at: 0 }
    }

    fn read(&mut self) -> Result<Option<Part<'a>>, Error> {
        if self.at == self.run.length() {
            return Ok(None);
        }
        let (part, end) = format::read::<RecipePart<'_>>(self.run, self.at, self.run)?;
        self.at = end;
        Part::of(&part).map(Some)
    }

    /// Checks every part.
    pub(super) fn check(mut self) -> Result<(), Error> {
        while self.read()?.is_some() {}
        Ok(())
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    /// Returns the next part. Where the section is damaged, which [`Entry::verify`](crate::Entry::verify) tells, there
    /// is none.
    fn next(&mut self) -> Option<Part<'a>> {
        let next = self.read().ok().flatten();
        if next.is_none() {
            *self = Self::of(Run::default());
        }
        next
    }
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}
