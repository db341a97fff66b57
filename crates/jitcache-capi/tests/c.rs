//! The header is that of the source, and a program in C does with it what an engine does.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `UPDATE_HEADER=1` has it written.
#[test]
fn the_header_declares_what_there_is() {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(package().join("src/error.rs"))
        .with_src(package().join("src/identity.rs"))
        .with_src(package().join("src/builder.rs"))
        .with_src(package().join("src/module.rs"))
        .with_src(package().join("src/cache.rs"))
        .generate()
        .unwrap()
        .write(&mut header);
    let (header, path) = (String::from_utf8(header).unwrap(), package().join("include/jitcache.h"));
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &header).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), header);
}

/// Returns the folder of the libraries: this test was built beside them.
fn libraries() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn compile(to: &Path, options: &[&str], libraries: &[&str]) -> bool {
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-g", "-I"]).arg(package().join("include"));
    cc.args(options).arg(package().join("tests/engine.c")).arg("-o").arg(to).args(libraries);
    cc.status().unwrap().success()
}

#[test]
fn an_engine_in_c_compiles_once_and_loads_in_the_next_process() {
    let (folder, scratch) = (libraries(), env::temp_dir().join(format!("jitcache-c-{}", std::process::id())));
    fs::create_dir(&scratch).unwrap();
    let archive = folder.join("libjitcache_c.a");
    let (archive, search) = (archive.to_str().unwrap(), format!("-L{}", folder.display()));
    let path = format!("-Wl,-rpath,{}", folder.display());
    for (name, options, link) in [
        ("static", &[][..], &[archive, "-lpthread", "-ldl", "-lm"][..]),
        ("shared", &[], &[&search, &path, "-ljitcache_c"]),
        ("sanitized", &["-fsanitize=address,undefined"], &[archive, "-lpthread", "-ldl", "-lm"]),
    ] {
        let (program, root) = (scratch.join(name), scratch.join(format!("{name}.cache")));
        assert!(compile(&program, options, link), "{name}");
        for (nth, said) in ["no entry", "bytes of code loaded"].into_iter().enumerate() {
            let output = Command::new(&program).arg(&root).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{name}: {}\n{text}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(text.contains("main(20) = 41") && text.contains("main(4) = 9"), "{name}: {text}");
            assert!(text.contains(&format!("compiled {} times: 1 function", 1 - nth)), "{name}: {text}");
            assert!(text.contains("another: the engine's function returned 7"), "{name}: {text}");
            assert!(text.contains(said), "{name}: {text}");
        }
        if name == "static" {
            runs_under_valgrind(&program, &root);
        }
    }
    fs::remove_dir_all(scratch).unwrap();
}

fn runs_under_valgrind(program: &Path, root: &Path) {
    let valgrind = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .arg(program)
        .arg(root)
        .output();
    let Ok(output) = valgrind else {
        println!("C under valgrind: skipped, it is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
