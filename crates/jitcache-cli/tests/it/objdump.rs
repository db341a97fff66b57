//! The listing of code, compared with that of objdump.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use jitcache_testkit::scratch::Scratch;
use jitcache_testkit::skip::skip;
use serde_json::Value;

use crate::kit::{files, golden, jitcache, linked};

/// How objdump is called and told what code is of.
struct Arch {
    name: &'static str,
    programs: [&'static str; 2],
    options: &'static [&'static str],
}

const ARCHES: [Arch; 2] = [
    Arch { name: "amd64", programs: ["objdump", "x86_64-linux-gnu-objdump"], options: &["-mi386:x86-64", "-Mintel"] },
    Arch { name: "arm64", programs: ["aarch64-linux-gnu-objdump", "objdump"], options: &["-maarch64"] },
];

#[test]
fn code_is_listed_as_objdump_lists_it() {
    for arch in ARCHES {
        let scratch = Scratch::new();
        let (mut seen, mut instructions) = (BTreeSet::new(), 0);
        for cache in [golden(), linked()] {
            for path in files(cache.path()) {
                let directory = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
                if !path.is_file() || !directory.ends_with(&format!("-{}-linux", arch.name)) {
                    continue;
                }
                for function in functions(&path) {
                    let code: Vec<u8> = function.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
                    // Many are alike but for a number.
                    if code.is_empty() || !seen.insert(code.get(..100).unwrap_or(&code).to_vec()) {
                        continue;
                    }
                    let Some(theirs) = objdump(&arch, &scratch, function[0].0, &code) else {
                        return skip(
                            "code_is_listed_as_objdump_lists_it",
                            "there is no objdump for both architectures",
                        );
                    };
                    instructions += compare(&arch, &function, &theirs);
                }
            }
        }
        assert!(seen.len() >= 10 && instructions > 800, "{}: {} {instructions}", arch.name, seen.len());
    }
}

/// Returns the functions of an entry: of each instruction, where it stands, its bytes and its text.
fn functions(path: &Path) -> Vec<Vec<(u64, Vec<u8>, String)>> {
    let (directory, key) = (path.parent().unwrap().to_str().unwrap(), path.file_name().unwrap().to_str().unwrap());
    let output = jitcache(&["disasm", directory, key, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let instruction = |told: &Value| {
        let digits = told["bytes"].as_str().unwrap();
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        (told["offset"].as_u64().unwrap(), bytes.collect(), told["text"].as_str().unwrap().to_owned())
    };
    let functions = told["functions"].as_array().unwrap().iter();
    functions.map(|told| told["instructions"].as_array().unwrap().iter().map(instruction).collect()).collect()
}

/// Returns what objdump has for the instructions of a function, by their offsets.
fn objdump(arch: &Arch, scratch: &Scratch, at: u64, code: &[u8]) -> Option<BTreeMap<u64, String>> {
    let file = scratch.path().join("code");
    fs::write(&file, code).unwrap();
    let run = |program| {
        let mut command = Command::new(program);
        command.args(["-D", "-bbinary", "-z", "--insn-width=16"]).arg(format!("--adjust-vma={at:#x}"));
        Some(command.args(arch.options).arg(&file).output().ok()?).filter(|output| output.status.success())
    };
    let output = arch.programs.into_iter().find_map(run)?;
    let listing = String::from_utf8(output.stdout).unwrap();
    let lines = listing.lines().filter_map(|line| {
        let (at, rest) = line.split_once(":\t")?;
        let text = rest.split_once('\t').map_or("", |(_, text)| text);
        Some((u64::from_str_radix(at.trim(), 16).ok()?, text.replace('\t', " ")))
    });
    Some(lines.collect())
}

/// Compares a function, and returns how many instructions it has. Behind its code stand constants, for which no
/// disassembler has a name that another must have: there it ends.
fn compare(arch: &Arch, function: &[(u64, Vec<u8>, String)], theirs: &BTreeMap<u64, String>) -> usize {
    for (count, (at, _, text)) in function.iter().enumerate() {
        let [our, their] = [text, theirs.get(at).unwrap_or(&String::new())].map(|text| normal(arch, text));
        let is_constant = |text: &str| [".byte", "(bad)", "es ", "rex.", "udf"].iter().any(|it| text.starts_with(it));
        if is_constant(&our) || is_constant(&their) {
            return count;
        }
        assert_eq!(our, their, "{} at {at:#x}", arch.name);
    }
    function.len()
}

/// Returns the text of an instruction in a form that both have: without comments and blanks, numbers in decimal digits,
/// and of two names for the same thing one.
fn normal(arch: &Arch, text: &str) -> String {
    let text = text.to_lowercase();
    let comment = if arch.name == "amd64" { " #" } else { " //" };
    let text = text.split(comment).next().unwrap().split(" ;").next().unwrap();
    let (mnemonic, operands) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut normal = String::new();
    let mut rest = operands.trim();
    while let Some(at) = rest.find("0x") {
        let digits = &rest[at + 2..];
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let number = u64::from_str_radix(&digits[..end], 16).unwrap();
        normal += &format!("{}{}", &rest[..at], number.cast_signed());
        rest = &digits[end..];
    }
    let operands = (normal + rest).replace(' ', "").replace("+-", "-").replace("*1", "");
    let mnemonic = match mnemonic {
        "movabs" => "mov",
        "b.cs" => "b.hs",
        "b.cc" => "b.lo",
        ".inst" => ".word",
        mnemonic => mnemonic,
    };
    let operands = match (mnemonic, operands.split_once(',')) {
        // Three operands, of which two are the same.
        ("imul", Some((first, others))) if others.starts_with(&format!("{first},")) => others.to_owned(),
        // Ours counts pages from the start of the file.
        ("adrp", Some((register, _))) => register.to_owned(),
        ("csel" | "csinc" | "cset", _) => operands.replace(",cs", ",hs").replace(",cc", ",lo"),
        _ => operands,
    };
    // A constant that is moved is an `orr` with the register of zeros.
    match operands.split_once(",xzr,#").or(operands.split_once(",wzr,#")) {
        Some((to, constant)) if mnemonic == "orr" => format!("mov {to},#{constant}"),
        _ => format!("{mnemonic} {operands}"),
    }
}
