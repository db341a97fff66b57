//! What a miss is explained by: the entries that come next, and in what they differ.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::entry::{Difference, Recipe, What};
use crate::words::Key;

/// Why there is no entry of a recipe. Returned by [`Store::explain`](crate::Store::explain); its text is for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The entries that come nearest, eight at most: first those of the same sources, and of each kind those that
    /// differ in fewer parts; of equal ones those of the store's own directory.
    pub nearest: Vec<Near>,
    /// How many files were looked at that have names of entries.
    pub looked_at: u64,
    /// How many of them keep no recipe, or cannot be read.
    pub without_recipe: u64,
    /// Whether there are more, which were not looked at.
    pub has_more: bool,
}

/// An entry that comes near. One without differences is that of the recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Near {
    /// Its key.
    pub key: Key,
    /// The directory that it is in.
    pub directory: PathBuf,
    /// In what its recipe differs from the one that is wanted.
    pub differences: Vec<Difference>,
}

/// How many entries are told.
const NEAREST: usize = 8;

impl Explanation {
    pub(super) fn add(&mut self, wanted: &Recipe, found: &Recipe, directory: &Path) {
        let differences = wanted.parts().differences(&found.parts());
        let near = Near { key: *found.key(), directory: directory.into(), differences };
        // Directories come one after another, and their files in no order.
        let at = self.nearest.partition_point(|other| match other.distance().cmp(&near.distance()) {
            Ordering::Equal => other.directory != near.directory || other.key <= near.key,
            order => order.is_lt(),
        });
        if at < NEAREST {
            self.nearest.insert(at, near);
            self.nearest.truncate(NEAREST);
        }
    }
}

impl Near {
    /// How far it is: by the sources first.
    fn distance(&self) -> (usize, usize) {
        let sources = self.differences.iter().filter(|difference| difference.what == What::Source).count();
        (sources, self.differences.len())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { looked_at, without_recipe, has_more, .. } = self;
        let more = if *has_more { ", and there are more" } else { "" };
        write!(f, "of {looked_at} files, {without_recipe} have no recipe{more}")?;
        self.nearest.iter().try_for_each(|near| write!(f, "\n{near}"))
    }
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.key, self.directory.display())?;
        if self.differences.is_empty() {
            return f.write_str(": the entry that is wanted");
        }
        self.differences.iter().try_for_each(|difference| write!(f, "\n    {difference}"))
    }
}
