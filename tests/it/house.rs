//! The architecture: which file may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The floors of src/, from the lowest.
const FLOORS: [&str; 13] = [
    "words", "error", "format", "entry", "program", "memory", "file", "load", "store", "registry", "cache", "wazero",
    "object",
];

/// Every file of src/ by its module path, with its text in front of its unit tests.
fn modules() -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let root = folders[0].clone();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().with_extension("");
            let name: Vec<_> = name.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
            let text = fs::read_to_string(&path).unwrap();
            let is_module = |at: &usize| {
                let item = text[at + 1..].lines().find(|line| !line.starts_with("#["));
                item.is_some_and(|item| item.starts_with("mod ") && item.ends_with('{'))
            };
            let end = text.match_indices("\n#[cfg(test)]\n").map(|(at, _)| at).find(is_module).unwrap_or(text.len());
            modules.insert(name.join("::"), text[..end].to_owned());
        }
    }
    modules.remove("lib");
    modules
}

/// The modules that a file imports, by the paths in its `use` lines.
fn imports(name: &str, text: &str, all: &BTreeMap<String, String>) -> BTreeSet<String> {
    let parent = name.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for line in text.split(';').flat_map(|statement| statement.split("use ").skip(1)) {
        let path = if let Some(path) = line.strip_prefix("crate::") {
            path.to_owned()
        } else if let Some(path) = line.strip_prefix("super::") {
            format!("{parent}::{path}")
        } else if all.contains_key(&format!("{name}::{}", line.split("::").next().unwrap())) {
            format!("{name}::{line}")
        } else {
            continue;
        };
        // The longest beginning of the path that is a file; of a list, each of its parts.
        let (stem, list) = path.split_once('{').unwrap_or((&path, ""));
        let parts = list.split([',', '}']).map(str::trim).filter(|part| !part.is_empty());
        let paths = parts.map(|part| format!("{stem}{part}")).chain(list.is_empty().then(|| path.clone()));
        for path in paths {
            let mut path = path.trim().trim_start_matches("::");
            while !all.contains_key(path) {
                let Some((shorter, _)) = path.rsplit_once("::") else { break };
                path = shorter;
            }
            if all.contains_key(path) && path != name {
                found.insert(path.to_owned());
            }
        }
    }
    found
}

fn floor(module: &str) -> usize {
    let folder = module.split("::").next().unwrap();
    FLOORS.iter().position(|floor| *floor == folder).unwrap_or_else(|| panic!("{module} is on no floor"))
}

#[test]
fn imports_point_down_from_floor_to_floor() {
    let all = modules();
    for (name, text) in &all {
        for imported in imports(name, text, &all) {
            assert!(floor(&imported) <= floor(name), "{name} imports {imported}, which is above it");
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let all = modules();
    let mut left: BTreeMap<_, _> = all.iter().map(|(name, text)| (name.clone(), imports(name, text, &all))).collect();
    assert!(left.values().map(BTreeSet::len).sum::<usize>() > 50, "imports are not found any more");
    // A file that imports none of those left is in no circle.
    while let Some(free) = left.iter().find(|(_, imports)| imports.iter().all(|name| !left.contains_key(name))) {
        let free = free.0.clone();
        left.remove(&free);
    }
    assert!(left.is_empty(), "in a circle, or above one: {left:#?}");
}

#[test]
fn no_floor_knows_a_feature_so_none_changes_a_byte_of_an_entry() {
    for (name, text) in modules() {
        assert!(!text.contains("feature = \""), "{name}");
    }
}

#[test]
fn unsafe_code_stands_on_one_floor() {
    for (name, text) in modules() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let has_unsafe =
            code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|w| w == "unsafe");
        assert!(!has_unsafe || floor(&name) == floor("memory"), "{name}");
    }
}

#[test]
fn what_runs_where_is_told_alike_in_both_texts() {
    let [readme, specification] = [include_str!("../../README.md"), include_str!("../../SPEC.md")].map(|text| {
        let rows = text.lines().skip_while(|line| !line.starts_with("| platform |"));
        rows.take_while(|line| line.starts_with('|')).collect::<Vec<_>>()
    });
    assert_eq!(readme, specification);
    assert!(readme.len() > 2);
}
