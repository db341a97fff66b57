//! Looking for the entries that explain a miss.

use super::Store;
use super::explanation::Explanation;
use crate::entry::Recipe;
use crate::error::Error;
use crate::file;
use crate::load::read_recipe;
use crate::words::Key;

/// How many files are looked at, and how many bytes are read of all of them.
const MOST_FILES: u64 = 1024;
const MOST_BYTES: u64 = 4 << 20;

/// How long a seal is that is read at all, in bytes.
const LONGEST_SEAL: u64 = 64 << 10;

impl Store {
    /// Tells why there is no entry of a recipe: which entries of this engine come nearest, and in what they differ.
    ///
    /// Of what is in this store's own directory, and then in those of other versions and targets under the root, at
    /// most 1024 files are opened and 4 MiB read: their beginnings and ends alone. So it takes some milliseconds, and
    /// is for whoever wonders about a miss. Bases are not looked at. Only entries whose builder was given a [`Recipe`]
    /// can be told, and what they say is not checked: it is for people, and nothing that a program should rely on.
    /// Nothing is changed.
    ///
    /// ```
    /// use jitcache::{Cache, Error, Identity, Recipe};
    ///
    /// # let root = std::env::temp_dir().join(format!("jitcache-explain-{}", std::process::id()));
    /// let cache = Cache::open_or_in_memory(&root, Identity::new("myjit", *b"MYJIT\0", "1.4.2")?);
    /// let recipe = |opt| Recipe::of(cache.identity()).source(b"fn main() {}").flag("opt", opt).finish();
    /// cache.get_or_compile(&recipe("2"), |entry| {
    ///     entry.code(vec![0xc3]).function(0);
    ///     Ok::<(), Error>(())
    /// })?;
    /// let explanation = cache.explain(&recipe("3"))?;
    /// assert_eq!(explanation.nearest[0].differences[0].to_string(), r#"flag opt: wanted "3", found "2""#);
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for a root that is there and cannot be listed, and [`Error::Memory`].
    pub fn explain(&self, recipe: &Recipe) -> Result<Explanation, Error> {
        let (mut explanation, mut left) = (Explanation::default(), MOST_BYTES);
        for directory in self.room().directories()? {
            // A directory that cannot be listed, and one that vanishes, has nothing to tell.
            let Ok(names) = file::names(&directory) else { continue };
            for name in names.filter_map(|name| name.ok()?.parse::<Key>().ok()) {
                if explanation.looked_at == MOST_FILES || left == 0 {
                    explanation.has_more = true;
                    return Ok(explanation);
                }
                explanation.looked_at = explanation.looked_at.saturating_add(1);
                let path = directory.join(name.to_string());
                let most = LONGEST_SEAL.min(left);
                let (found, length) = read_recipe(&path, &self.trusted, self.identity.magic(), most)?;
                left = left.saturating_sub(length);
                match found {
                    Some(found) => explanation.add(recipe, &found, &directory),
                    None => explanation.without_recipe = explanation.without_recipe.saturating_add(1),
                }
            }
        }
        Ok(explanation)
    }
}
