//! Entries as they lie on the disk, of whichever engine.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use jitcache::error::Field;
use jitcache::{Access, Entry, Error, FileBytes, Identity, Key, MacKey, Outline, Store};
use serde_json::Value;

use crate::judge::{Judged, NO_KEY, State, judge, runs_here};
use crate::out::{Failure, Out};
use crate::progress::Progress;
use crate::table::{Cell, Column};
use crate::text;

/// The directories of entries below a root, and what lies in them.
pub(crate) struct Cache {
    pub(crate) directories: Vec<Directory>,
    pub(crate) entries: Vec<Found>,
    /// What could not be looked at.
    pub(crate) passed_over: Vec<String>,
    /// So many digits tell the keys apart.
    digits: usize,
    now: SystemTime,
}

/// A directory of one engine, version and target.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

impl Directory {
    /// Returns name and version of the engine, and the target, of which `<name>-<version>-<arch>-<os>` consists.
    pub(crate) fn parts(&self) -> [&str; 3] {
        let (name, rest) = self.name.split_once('-').unwrap_or_default();
        let mut dashes = rest.rmatch_indices('-').map(|(at, _)| at);
        let version = dashes.nth(1).and_then(|at| Some((rest.get(..at)?, rest.get(at.checked_add(1)?..)?)));
        let (version, target) = version.unwrap_or_default();
        [name, version, target]
    }
}

/// What has the name of an entry.
#[derive(Clone)]
pub(crate) struct Found {
    /// Its place in the list of directories.
    pub(crate) directory: usize,
    pub(crate) key: Key,
    pub(crate) bytes: u64,
    pub(crate) modified: Option<SystemTime>,
}

/// An entry that was read, with what its bytes came to.
pub(crate) struct Opened {
    pub(crate) key: Key,
    pub(crate) directory: String,
    pub(crate) path: PathBuf,
    pub(crate) file: FileBytes,
    pub(crate) judged: Judged,
}

impl Opened {
    /// Returns the entry, sound or not, if its lengths fit.
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        Entry::parse(&self.file, self.judged.identity.as_ref()?).ok()
    }

    /// Returns how long the file is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.file.len()).unwrap_or(u64::MAX)
    }
}

/// Returns how many entries there are.
pub(crate) fn count(entries: &[Found]) -> u64 {
    u64::try_from(entries.len()).unwrap_or(u64::MAX)
}

/// Returns a path in which there are no links. Windows has it begin with `\\?\`, which people do not write.
pub(crate) fn real(path: &Path) -> io::Result<PathBuf> {
    let real = fs::canonicalize(path)?;
    let mut parts = real.components();
    if let Some(Component::Prefix(prefix)) = parts.next()
        && let Prefix::VerbatimDisk(letter) = prefix.kind()
    {
        return Ok(Path::new(&format!("{}:", char::from(letter))).join(parts));
    }
    Ok(real)
}

/// Returns whether a directory of entries has that name.
fn is_engines(name: &str) -> bool {
    Identity::of_entry(name, &[], &NO_KEY).is_some()
}

impl Cache {
    /// Looks up what is in a directory, which is one of entries or holds such.
    pub(crate) fn open(path: &Path, out: &Out) -> Result<Self, Failure> {
        let failed = |error| Failure::io("look into", path, &error);
        let real = real(path).map_err(failed)?;
        let (directories, entries, passed_over) = (Vec::new(), Vec::new(), Vec::new());
        let mut cache = Self { directories, entries, passed_over, digits: 0, now: SystemTime::now() };
        let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_engines(name) {
            cache.directories.push(Directory { path: path.to_owned(), name: name.to_owned() });
        }
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    cache.pass_over(path, &error);
                    continue;
                }
            };
            if let Some(name) = entry.file_name().to_str()
                && is_engines(name)
                // A link is another's directory: nothing is listed twice, and nothing removed there.
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                cache.directories.push(Directory { path: entry.path(), name: name.to_owned() });
            }
        }
        cache.directories.sort_by(|a, b| a.name.cmp(&b.name));
        let progress = out.progress("found", 0);
        for directory in 0..cache.directories.len() {
            cache.look_into(directory, &progress);
        }
        drop(progress);
        cache.entries.sort_unstable_by_key(|entry| (entry.key, entry.directory));
        let pairs = cache.entries.iter().zip(cache.entries.iter().skip(1));
        cache.digits = pairs.map(|(a, b)| digits_apart(&a.key, &b.key)).fold(DIGITS, usize::max);
        Ok(cache)
    }

    fn look_into(&mut self, at: usize, progress: &Progress<'_>) {
        let Some(path) = self.directories.get(at).map(|directory| directory.path.clone()) else { return };
        let names = match fs::read_dir(&path) {
            Ok(names) => names,
            Err(error) => return self.pass_over(&path, &error),
        };
        for entry in names {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.pass_over(&path, &error),
            };
            let Some(key) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match entry.metadata() {
                // What is no file takes no room that an entry could.
                Ok(metadata) => self.entries.push(Found {
                    directory: at,
                    key,
                    bytes: if metadata.is_file() { metadata.len() } else { 0 },
                    modified: metadata.modified().ok().filter(|_| metadata.is_file()),
                }),
                Err(error) => self.pass_over(&entry.path(), &error),
            }
            progress.add(1, 0);
        }
    }

    fn pass_over(&mut self, path: &Path, error: &io::Error) {
        self.passed_over.push(format!("{}: {error}", path.display()));
    }

    /// Tells what was passed over.
    pub(crate) fn tell_passed_over(&self, out: &Out) {
        for passed_over in &self.passed_over {
            out.tell(&format!("passed over {passed_over}"));
        }
    }

    /// Returns the same as JSON.
    pub(crate) fn passed_over_json(&self) -> impl Iterator<Item = Value> {
        self.passed_over.iter().map(|text| Value::from(&text[..]))
    }

    /// Returns the column that keys stand in.
    pub(crate) const fn key_column(&self) -> Column {
        Column::Key(self.digits)
    }

    /// Returns what tables have of an entry: key, size and age.
    pub(crate) fn cells(&self, entry: &Found) -> [Cell; 3] {
        [entry.key.to_string(), text::bytes(entry.bytes), text::age(self.age(entry))].map(Cell::from)
    }

    pub(crate) fn directory(&self, entry: &Found) -> &str {
        self.directories.get(entry.directory).map_or("", |directory| &directory.name)
    }

    /// Opens the store of a directory, which is read only, whoever owns it.
    pub(crate) fn store(path: &Path, identity: Identity) -> Result<Store, Failure> {
        let real = real(path).map_err(|error| Failure::io("find", path, &error))?;
        let root = real.parent().unwrap_or(&real);
        let options = Store::options(identity).read_only();
        #[cfg(unix)]
        let options = options.trust(jitcache::Trust::Anyone);
        Ok(options.open(root)?)
    }

    pub(crate) fn path(&self, entry: &Found) -> PathBuf {
        let directory = self.directories.get(entry.directory);
        directory.map(|directory| directory.path.join(entry.key.to_string())).unwrap_or_default()
    }

    /// Returns how long ago an entry was last used; nothing for a time that is yet to come.
    pub(crate) fn age(&self, entry: &Found) -> Duration {
        entry.modified.and_then(|modified| self.now.duration_since(modified).ok()).unwrap_or_default()
    }

    /// Finds the entry whose key begins so.
    pub(crate) fn find(&self, beginning: &str) -> Result<Option<&Found>, Failure> {
        let wanted = beginning.to_lowercase();
        if wanted.is_empty() || wanted.len() > 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Failure::Usage(format!("{beginning}: a key is 64 hexadecimal digits, or the first of them")));
        }
        let mut found = self.entries.iter().filter(|entry| entry.key.to_string().starts_with(&wanted));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            let [a, b] = [first, second].map(|entry| format!("{} in {}", entry.key, self.directory(entry)));
            return Err(Failure::Usage(format!(
                "{beginning}: more than one entry begins so, {a} and {b} among them: \
                 give more of the key, or one directory"
            )));
        }
        Ok(first)
    }

    /// Finds the entries whose keys begin so, and says of which there are none.
    pub(crate) fn find_all(&self, beginnings: &[String]) -> Result<(Vec<Found>, Vec<String>), Failure> {
        let (mut entries, mut missing) = (Vec::new(), Vec::new());
        for beginning in beginnings {
            match self.find(beginning)? {
                Some(entry) => entries.push(entry.clone()),
                None => missing.push(format!("{beginning}: no entry has a key that begins so")),
            }
        }
        Ok((entries, missing))
    }

    /// Reads the entry whose key begins so, and checks every byte; if there is none, tells that.
    pub(crate) fn read(&self, beginning: &str, mac_key: Option<&MacKey>, out: &Out) -> Result<Option<Opened>, Failure> {
        let Some(found) = self.find(beginning)? else {
            out.tell(&format!("{beginning}: no entry has a key that begins so"));
            return Ok(None);
        };
        let path = self.path(found);
        let file = match FileBytes::open(&path, Access::READ) {
            Ok(Some(file)) => file,
            Ok(None) => {
                out.tell(&format!("{}: it has vanished", path.display()));
                return Ok(None);
            }
            Err(error @ Error::NotAFile { .. }) => {
                out.tell(&error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let directory = self.directory(found).to_owned();
        let judged = judge(&directory, &file, &found.key, mac_key);
        Ok(Some(Opened { key: found.key, directory, path, file, judged }))
    }

    /// Returns what the lengths of an entry tell; `None` if it has vanished.
    pub(crate) fn outline(&self, entry: &Found, mac_key: Option<&MacKey>) -> Option<Judged> {
        let outline = Outline::open(&self.path(entry), self.directory(entry), mac_key.unwrap_or(&NO_KEY));
        let outline = match outline {
            Ok(outline) => outline?,
            Err(error) => return Some(Judged::failed(error, None)),
        };
        if let Some(found) = outline.key
            && found != entry.key
        {
            let key = outline.fields.iter().find(|(field, _)| *field == Field::Key);
            let error = Error::Key { at: key.map_or(0, |(_, range)| range.start), expected: entry.key, found };
            return Some(Judged::failed(error, Some(outline.identity)));
        }
        let state = if runs_here(&outline.identity) { State::Whole } else { State::Foreign };
        Some(Judged { state, error: None, identity: Some(outline.identity), fields: outline.fields })
    }

    /// Checks every byte of an entry; `None` if it has vanished.
    pub(crate) fn verify(&self, entry: &Found, mac_key: Option<&MacKey>) -> Option<Judged> {
        thread_local! {
            /// What files are read into: getting memory for each would take longer than reading it.
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        BUFFER.with_borrow_mut(|buffer| match FileBytes::read_into(&self.path(entry), Access::READ, buffer) {
            Ok(file) => Some(judge(self.directory(entry), file?, &entry.key, mac_key)),
            Err(error) => Some(Judged::failed(error, None)),
        })
    }

    /// Calls `look` on every entry, by twice as many threads as there are processors, so that some read while others
    /// compute, and returns what it made of each.
    pub(crate) fn each<T: Send>(
        &self,
        entries: &[Found],
        progress: &Progress<'_>,
        look: impl Fn(&Found) -> T + Sync,
    ) -> Vec<T> {
        /// Entries that a thread takes at once.
        const MANY: usize = 16;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = Vec::new();
            loop {
                let at = next.fetch_add(MANY, Ordering::Relaxed);
                let Some(rest) = entries.get(at..).filter(|rest| !rest.is_empty()) else { return own };
                for (place, entry) in rest.iter().take(MANY).enumerate() {
                    own.push((at.saturating_add(place), look(entry)));
                    progress.add(1, entry.bytes);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(2);
        let threads = threads.min(entries.len().div_ceil(MANY));
        let mut done: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            // Each is waited for: the scope ends when the work does, before threads have given back what they had.
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.flat_map(|own| own.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, made)| made).collect()
    }
}

/// How many digits of a key are shown at least.
const DIGITS: usize = 12;

/// Returns how many digits it takes to tell two keys apart.
fn digits_apart(a: &Key, b: &Key) -> usize {
    let pairs = a.as_bytes().iter().zip(b.as_bytes());
    let Some((same, (a, b))) = pairs.enumerate().find(|(_, (a, b))| a != b) else { return 0 };
    same.saturating_mul(2).saturating_add(if a >> 4 == b >> 4 { 2 } else { 1 })
}
