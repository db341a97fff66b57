//! Recipes: keys that know what they are made of.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::append::append;
use super::identity::Identity;
use super::key::{KeyBuilder, named, number};
use super::parts::{Part, Parts};
use super::seal::RECIPE;
use super::view::Entry;
use crate::error::{Error, heap};
use crate::format::Run;
use crate::words::{Key, size};

/// A key with what it is made of, which an entry can keep: so a miss can be explained. Made by [`Recipe::of`].
///
/// A [`Cache`](crate::Cache) takes it in the place of the key, and stores it with what is compiled. Names and values of
/// flags, and what the identity says, *stand in the file as they are*; a source is there as its length and its SHA-256.
/// So what is secret goes in as a source, and one that cannot be guessed. Making one takes a second SHA-256 of every
/// source; an engine whose sources are large makes the key, [`Key::of`], and makes the recipe only where it compiles,
/// for [`Builder::recipe`](crate::Builder::recipe).
///
/// ```
/// use jitcache::{Builder, Identity, Key, Recipe};
///
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let recipe = Recipe::of(&identity).source(b"fn main() {}").flag("opt", "2").finish();
/// assert_eq!(*recipe.key(), Key::of(&identity).source(b"fn main() {}").flag("opt", "2").finish());
///
/// let mut builder = Builder::new();
/// builder.code(&[0xc3][..]).function(0).recipe(&recipe);
/// let entry = builder.finish(&identity, recipe.key())?;
/// assert!(entry.recipe().unwrap().eq(recipe.parts()));
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    key: Key,
    /// As they stand in a file.
    parts: Vec<u8>,
    /// Length of a part that there was no memory for, in bytes.
    pub(super) missing: Option<u64>,
}

impl Recipe {
    /// Begins the recipe of something that the engine `identity` compiles: as [`Key::of`] begins its key.
    pub fn of(identity: &Identity) -> RecipeBuilder {
        let mut builder = RecipeBuilder { key: Key::of(identity), parts: Vec::new(), missing: None };
        for (name, value) in settings(identity) {
            builder.add(Part::Setting { name, value: &value });
        }
        builder
    }

    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Returns what the key is made of.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts::of(Run::new(&self.parts))
    }

    /// Returns the recipe that a sealed entry keeps, if it keeps one. What is wrong with it [`Entry::verify`] tells.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn kept_by(entry: &Entry<'_>) -> Result<Option<Self>, Error> {
        let Some(sealed) = &entry.sealed else { return Ok(None) };
        let parts = sealed.sections().find(RECIPE);
        parts.map(|parts| Self::of_entry(sealed.key(), parts.bytes())).transpose()
    }

    /// Returns the parts as they stand in a file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.parts
    }

    /// Returns the recipe of an entry, whose section has these bytes.
    pub(super) fn of_entry(key: Key, bytes: &[u8]) -> Result<Self, Error> {
        let mut parts = Vec::new();
        heap::append(&mut parts, bytes)?;
        Ok(Self { key, parts, missing: None })
    }
}

/// Returns what an identity says that is part of its keys and not empty, in the order in which it goes in.
fn settings(identity: &Identity) -> impl Iterator<Item = (&'static str, String)> {
    let (sealing, fingerprint) = named(identity.sealing());
    let alignment = identity.alignment();
    let from = if alignment.in_file { " in the file" } else { "" };
    let sections: Vec<_> = identity.sections().map(|tag| tag.to_string()).collect();
    let settings = [
        ("magic", identity.magic().0.escape_ascii().to_string()),
        ("version", identity.version().as_bytes().escape_ascii().to_string()),
        ("target", identity.target().to_string()),
        ("CPU features", identity.cpu().to_string()),
        ("build id", hexadecimal(identity.build_id())),
        ("sealing", sealing.to_owned()),
        ("MAC key", hexadecimal(fingerprint.as_ref().map_or(&[], <[u8; 32]>::as_slice))),
        ("revision", number(identity.revision()).to_string()),
        ("alignment", format!("{}{from}", alignment.bytes)),
        ("sections", sections.join(", ")),
    ];
    settings.into_iter().filter(|(_, value)| !value.is_empty())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Text cannot fail to be written to.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A recipe in the making. Returned by [`Recipe::of`].
#[derive(Clone, Debug)]
#[must_use = "a recipe is made by `finish`"]
pub struct RecipeBuilder {
    key: KeyBuilder,
    parts: Vec<u8>,
    missing: Option<u64>,
}

impl RecipeBuilder {
    /// Adds what is compiled, as [`KeyBuilder::source`] does. It is kept as its length and its SHA-256.
    pub fn source(mut self, source: &[u8]) -> Self {
        self.add(Part::Source { length: size(source), digest: Sha256::digest(source).into() });
        Self { key: self.key.source(source), ..self }
    }

    /// Adds a setting that changes the code, as [`KeyBuilder::flag`] does. It is kept as it is.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.add(Part::Flag { name, value });
        Self { key: self.key.flag(name, value), ..self }
    }

    /// Returns the recipe.
    #[must_use]
    pub fn finish(self) -> Recipe {
        Recipe { key: self.key.finish(), parts: self.parts, missing: self.missing }
    }

    fn add(&mut self, part: Part<'_>) {
        if let Err(Error::Memory { length, .. }) = part.with(|part| append(&mut self.parts, part)) {
            self.missing = Some(length);
        }
    }
}

/// What is asked for: a [`Key`], or a [`Recipe`], which is stored with what is compiled. Both convert into it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub(crate) key: &'a Key,
    pub(crate) recipe: Option<&'a Recipe>,
}

impl<'a> From<&'a Key> for Wanted<'a> {
    fn from(key: &'a Key) -> Self {
        Self { key, recipe: None }
    }
}

impl<'a> From<&'a Recipe> for Wanted<'a> {
    fn from(recipe: &'a Recipe) -> Self {
        Self { key: &recipe.key, recipe: Some(recipe) }
    }
}
