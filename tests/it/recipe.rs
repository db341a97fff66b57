//! Recipes of keys: kept in an entry, read back, and compared to explain a miss.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jitcache::entry::{Difference, Part, RecipeBuilder, What};
use jitcache::error::{Bound, Field};
use jitcache::{Builder, Cache, Entry, Error, Identity, Key, Module, Place, Recipe, RelocationKind, Sealing, Store};

use crate::naive;
use crate::scratch::Scratch;

/// The tag of the section, as SPEC.md has it.
const TAG: u32 = (1 << 31) + 6;

/// One of the engine's, under which the section is made that is to be wrong.
const TAG_IN_MAKING: u32 = 0x5555_5555;

fn identity() -> Identity {
    Identity::new("recipe", *b"RECIPE", "1").unwrap()
}

fn recipe(opt: &str) -> Recipe {
    Recipe::of(&identity()).source(b"fn main() {}").flag("opt", opt).finish()
}

fn builder() -> Builder<'static> {
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 16]).function(0);
    builder
}

fn file(recipe: &Recipe) -> Vec<u8> {
    builder().recipe(recipe).finish(&identity(), recipe.key()).unwrap().to_vec()
}

/// Puts an entry under a root, in the directory of an identity.
fn put(root: &Path, identity: &Identity, recipe: &Recipe) {
    let store = Store::open(root, identity.clone()).unwrap();
    store.put(recipe.key(), &builder().recipe(recipe).finish(identity, recipe.key()).unwrap()).unwrap();
}

/// Where in a file the section with a tag begins.
fn section_at(file: &[u8], tag: u32) -> usize {
    let head = [&tag.to_le_bytes()[..], &[0]].concat();
    file.windows(head.len()).rposition(|window| window == head).unwrap()
}

/// Every file below a root, with what is in it and when it was written.
fn all_files(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let written = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path.clone(), (fs::read(path).unwrap(), written));
            }
        }
    }
    found
}

#[test]
fn a_recipe_has_the_key_of_its_parts_and_an_entry_tells_them_in_their_order() {
    let recipe = Recipe::of(&identity()).flag("opt", "2").source(b"x").flag("a", "").finish();
    assert_eq!(*recipe.key(), Key::of(&identity()).flag("opt", "2").source(b"x").flag("a", "").finish());
    let file = file(&recipe);
    let entry = Entry::parse(&file, &identity()).unwrap();
    entry.verify().unwrap();
    let parts: Vec<_> = entry.recipe().unwrap().collect();
    assert!(parts.iter().copied().eq(recipe.parts()));
    let setting = |part: &Part<'_>| if let Part::Setting { name, .. } = part { Some((*name).to_owned()) } else { None };
    let mut settings: Vec<_> = parts.iter().filter_map(setting).collect();
    // A processor may have none.
    settings.retain(|name| name != "CPU features");
    assert_eq!(settings, ["magic", "version", "target", "sealing", "revision", "alignment"]);
    assert_eq!(parts[1], Part::Setting { name: "version", value: "1" });
    let [first, second, third] = parts[parts.len() - 3..] else { panic!() };
    assert_eq!((first, third), (Part::Flag { name: "opt", value: "2" }, Part::Flag { name: "a", value: "" }));
    let Part::Source { length: 1, digest } = second else { panic!("{second:?}") };
    // SHA-256 of "x".
    assert_eq!(digest[..4], [0x2d, 0x71, 0x16, 0x42]);
    assert!(!file.windows(4).any(|window| window == b"main"));
    assert!(
        Entry::parse(&builder().finish(&identity(), recipe.key()).unwrap().to_vec(), &identity())
            .unwrap()
            .recipe()
            .is_none()
    );
}

#[test]
fn what_is_secret_of_an_identity_stands_in_no_recipe() {
    let identity = identity().with_sealing(Sealing::Mac(jitcache::MacKey::new(*b"a key that nobody else may know!")));
    let recipe = Recipe::of(&identity).finish();
    let file = builder().recipe(&recipe).finish(&identity, recipe.key()).unwrap().to_vec();
    assert!(!file.windows(8).any(|window| window == b"a key th"));
    let hexadecimal = b"61206b6579";
    assert!(!file.windows(hexadecimal.len()).any(|window| window == hexadecimal));
}

#[test]
fn a_recipe_of_another_key_is_refused_and_one_of_a_plain_entry_is_left_out() {
    let other = *recipe("3").key();
    let finished = |builder: &mut Builder<'_>, key| builder.finish(&identity(), key).map(|entry| entry.to_vec());
    assert!(matches!(finished(builder().recipe(&recipe("2")), &other), Err(Error::Invalid { what: "recipe", .. })));
    // The last one counts.
    assert!(finished(builder().recipe(&recipe("2")).recipe(&recipe("3")), &other).is_ok());
    let plain = identity().with_sealing(Sealing::Plain);
    let without = builder().finish(&plain, &other).unwrap().to_vec();
    assert_eq!(builder().recipe(&recipe("2")).finish(&plain, &other).unwrap().to_vec(), without);
}

#[test]
fn an_entry_with_a_recipe_and_with_sections_that_nobody_knows_is_put_together_as_it_was() {
    let recipe = recipe("2");
    for (is_linked, is_required) in [(false, false), (true, false), (false, true)] {
        let mut builder = builder();
        builder.section(1, false, b"one").metadata(b"two").recipe(&recipe);
        if is_linked {
            let (import, data) = (builder.import("name"), builder.data(&[0; 8], 8));
            builder.relocate(data, RelocationKind::Abs8, import, 0).symbol(Place::Code(0), 16, "f");
        }
        let mut file = builder.finish(&identity(), recipe.key()).unwrap().to_vec();
        let at = section_at(&file, TAG);
        file[at + 4] = is_required.into();
        naive::seal_again(&mut file, None, None);
        let entry = Entry::parse(&file, &identity()).unwrap();
        entry.verify().unwrap();
        assert_eq!(Builder::from(&entry).finish(&identity(), recipe.key()).unwrap().to_vec(), file);
        let other = Key::from_bytes([1; 32]);
        let (identity, mut moved) = (identity(), Builder::from(&entry));
        let moved = moved.finish(&identity, &other).unwrap();
        moved.verify().unwrap();
        assert!(moved.recipe().is_none() && moved.metadata() == entry.metadata());
        // As a section of tomorrow, it is passed over by whoever does not know it, and kept.
        file[at..at + 4].copy_from_slice(&(TAG + 1).to_le_bytes());
        naive::seal_again(&mut file, None, None);
        match Entry::parse(&file, &identity) {
            Err(Error::UnknownSection { tag, .. }) => assert_eq!((tag, is_required), (TAG + 1, true)),
            entry => {
                let entry = entry.unwrap();
                entry.verify().unwrap();
                assert!(entry.recipe().is_none() && !is_required);
                assert_eq!(Builder::from(&entry).finish(&identity, recipe.key()).unwrap().to_vec(), file);
                assert!(Builder::from(&entry).finish(&identity, &other).is_ok());
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_recipe_is_told_by_verifying_and_keeps_nobody_from_the_code() {
    let flag = |kind: u8, name: &[u8], value: &[u8]| {
        let length = |bytes: &[u8]| (bytes.len() as u64).to_le_bytes();
        [&[kind][..], &length(name), name, &length(value), value].concat()
    };
    let value = |field, behind: u64, expected, found: u64| (field, behind, Some(expected), found);
    for (part, expected) in [
        (flag(3, b"n", b"v"), value(Field::PartKind, 0, Bound::AtMost(2), 3)),
        (flag(1, b"n\xff", b"v"), value(Field::PartName, 10, Bound::Below(0x80), 0xff)),
        (flag(0, b"n", b"\xc3"), value(Field::PartValue, 18, Bound::Below(0x80), 0xc3)),
        (flag(2, b"n", &[0; 40]), value(Field::PartNameLength, 1, Bound::Exactly(0), 1)),
        (flag(2, b"", &[0; 41]), value(Field::PartValueLength, 9, Bound::Exactly(40), 41)),
        (flag(2, b"", &[0; 7]), value(Field::PartValueLength, 9, Bound::Exactly(40), 7)),
        (flag(1, b"n", b"v")[..5].to_vec(), (Field::PartNameLength, 1, None, 4)),
        (flag(1, b"n", b"v")[..17].to_vec(), (Field::PartValueLength, 10, None, 7)),
        (flag(1, b"name", b"")[..11].to_vec(), (Field::PartName, 9, None, 2)),
        (flag(1, b"", b"value")[..20].to_vec(), (Field::PartValue, 17, None, 3)),
    ] {
        // The bytes stand in a section of the engine's until the tag is changed.
        let mut file = builder()
            .section(TAG_IN_MAKING, false, &part)
            .finish(&identity(), &Key::from_bytes([7; 32]))
            .unwrap()
            .to_vec();
        let at = section_at(&file, TAG_IN_MAKING);
        file[at..at + 4].copy_from_slice(&TAG.to_le_bytes());
        naive::seal_again(&mut file, None, None);
        let start = at as u64 + 13;
        let entry = Entry::parse(&file, &identity()).unwrap();
        match (entry.verify(), expected) {
            (Err(Error::Value { field, at, expected, found }), (wanted, behind, Some(bound), number)) => {
                assert_eq!((field, at - start, expected, found), (wanted, behind, bound, number));
            }
            (Err(Error::Truncated { field, at, found, .. }), (wanted, behind, None, number)) => {
                assert_eq!((field, at - start, found), (wanted, behind, number));
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
        assert_eq!(entry.recipe().unwrap().count(), 0);
        assert_eq!(Module::load(&entry).unwrap().code(), [0xc3; 16]);
    }
}

#[test]
fn a_miss_is_explained_by_the_entries_that_differ_in_the_fewest_parts_of_the_same_sources_first() {
    let scratch = Scratch::new();
    let (one, two) = (identity(), Identity::new("recipe", *b"RECIPE", "2").unwrap());
    let of = |identity: &Identity, source: &[u8], flags: &[(&str, &str)]| {
        let begun = Recipe::of(identity).source(source);
        flags.iter().fold(begun, |recipe: RecipeBuilder, (name, value)| recipe.flag(name, value)).finish()
    };
    let wanted = of(&one, b"f", &[("opt", "2"), ("debug", "no")]);
    let by_flags = of(&one, b"f", &[("opt", "3"), ("debug", "yes"), ("\u{1b}[2J", "\n")]);
    let by_order = of(&one, b"f", &[("debug", "no"), ("opt", "2")]);
    let by_version = of(&two, b"f", &[("opt", "2"), ("debug", "no")]);
    let by_source = of(&one, b"g", &[("opt", "2"), ("debug", "no")]);
    for recipe in [&by_source, &by_flags, &by_order] {
        put(scratch.path(), &one, recipe);
    }
    put(scratch.path(), &two, &by_version);
    // Others: without a recipe, of another engine, nothing at all, and what is no file.
    let store = Store::open(scratch.path(), one.clone()).unwrap();
    let key = |n| Key::from_bytes([n; 32]);
    store.put(&key(1), &builder().finish(&one, &key(1)).unwrap()).unwrap();
    let other = Identity::new("other", *b"OTHERS", "1").unwrap();
    let foreign = of(&other, b"f", &[]);
    let bytes = builder().recipe(&foreign).finish(&other, foreign.key()).unwrap().to_vec();
    fs::write(store.path(&key(2)), bytes).unwrap();
    fs::write(store.path(&key(3)), "").unwrap();
    fs::create_dir(store.path(&key(4))).unwrap();

    let before = all_files(scratch.path());
    let explanation = store.explain(&wanted).unwrap();
    assert_eq!(all_files(scratch.path()), before);
    assert_eq!((explanation.looked_at, explanation.without_recipe, explanation.has_more), (8, 4, false));
    let nearest: Vec<_> = explanation.nearest.iter().map(|near| near.key).collect();
    let [.., last] = nearest[..] else { panic!() };
    assert_eq!((nearest.len(), nearest[2], last), (4, *by_flags.key(), *by_source.key()));
    let near = |recipe: &Recipe| explanation.nearest.iter().find(|near| near.key == *recipe.key()).unwrap();
    let difference = |what, name: &str, wanted: Option<&str>, found: Option<&str>| {
        (what, name.to_owned(), wanted.map(str::to_owned), found.map(str::to_owned))
    };
    let told = |recipe| {
        let owned = |part: &Option<Box<str>>| part.as_deref().map(str::to_owned);
        let told = |difference: &Difference| {
            (difference.what, difference.name.to_string(), owned(&difference.wanted), owned(&difference.found))
        };
        near(recipe).differences.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told(&by_order), [difference(What::Order, "", None, None)]);
    assert_eq!(told(&by_version), [difference(What::Setting, "version", Some("1"), Some("2"))]);
    assert_eq!(near(&by_version).directory, scratch.path().join(two.directory_name()));
    assert_eq!(
        told(&by_flags),
        [
            difference(What::Flag, "\u{1b}[2J", None, Some("\n")),
            difference(What::Flag, "debug", Some("no"), Some("yes")),
            difference(What::Flag, "opt", Some("2"), Some("3")),
        ]
    );
    let [(What::Source, name, Some(source), Some(_))] = &told(&by_source)[..] else { panic!() };
    assert!(name.is_empty() && source.starts_with("1 bytes, SHA-256 252f10c8"), "{source}");

    let text = explanation.to_string();
    assert!(text.starts_with("of 8 files, 4 have no recipe\n"), "{text}");
    assert!(text.contains(&format!("{} in ", by_flags.key())), "{text}");
    assert!(text.contains("\n    flag opt: wanted \"2\", found \"3\"\n"), "{text}");
    assert!(text.contains("\n    flag \\u{1b}[2J: wanted none, found \"\\n\"\n"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    // The entry itself.
    put(scratch.path(), &one, &wanted);
    let explanation = store.explain(&wanted).unwrap();
    assert_eq!((explanation.nearest[0].key, explanation.nearest[0].differences.len()), (*wanted.key(), 0));
    assert!(explanation.to_string().contains(": the entry that is wanted\n"));
}

#[test]
fn of_many_entries_and_of_long_recipes_no_more_is_read_than_is_said() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    let long = |n: usize| Recipe::of(&identity()).flag("long", &"x".repeat(n)).finish();
    // A seal that is longer than what is read of it at first, and one that is not read at all.
    for n in [10_000, 70_000] {
        put(scratch.path(), &identity(), &long(n));
    }
    let explanation = store.explain(&long(1)).unwrap();
    assert_eq!((explanation.nearest.len(), explanation.without_recipe), (1, 1));
    assert_eq!(explanation.nearest[0].key, *long(10_000).key());
    for n in 0..1100_u32 {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&n.to_le_bytes());
        fs::write(store.path(&Key::from_bytes(name)), "").unwrap();
    }
    let explanation = store.explain(&long(1)).unwrap();
    assert_eq!((explanation.looked_at, explanation.has_more), (1024, true));
    assert!(explanation.nearest.len() <= 1 && explanation.to_string().contains(", and there are more"));
}

#[test]
fn a_cache_stores_the_recipe_that_a_module_is_asked_for_by() {
    let scratch = Scratch::new();
    let open = || Cache::open(scratch.path(), identity()).unwrap();
    let compile = |entry: &mut Builder<'_>| {
        *entry = builder();
        Ok::<(), Error>(())
    };
    let cache = open();
    cache.get_or_compile(&recipe("2"), compile).unwrap();
    let file = cache.store().unwrap().get(recipe("2").key()).unwrap().hit().unwrap();
    assert_eq!(file[..], self::file(&recipe("2")));
    let again = open();
    again
        .get_or_compile(recipe("2").key(), |_: &mut Builder<'_>| -> Result<(), Error> { panic!("it is there") })
        .unwrap();
    let explanation = again.explain(&recipe("3")).unwrap();
    assert_eq!(explanation.nearest[0].key, *recipe("2").key());
    assert_eq!(Cache::in_memory(identity()).explain(&recipe("3")).unwrap(), Default::default());
    // A root that is not there has nothing to tell.
    let nowhere = Store::options(identity()).read_only().open(scratch.path().join("nowhere")).unwrap();
    assert_eq!(nowhere.explain(&recipe("3")).unwrap(), Default::default());
}
