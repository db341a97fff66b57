//! SQLite, compiled to an object by `cc`, stored, loaded by every door, and asked.
#![cfg(all(unix, any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::ptr;

use jitcache::{Access, Builder, Identity, Key, Linker, Module, Store};

type Row = extern "C" fn(&mut Vec<String>, c_int, *const *const c_char, *const *const c_char) -> c_int;
type Open = extern "C" fn(*const c_char, &mut *mut c_void) -> c_int;
type Exec = extern "C" fn(*mut c_void, *const c_char, Row, &mut Vec<String>, *mut *mut c_char) -> c_int;
type Close = extern "C" fn(*mut c_void) -> c_int;

extern "C" fn row(
    rows: &mut Vec<String>,
    count: c_int,
    values: *const *const c_char,
    _: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap();
    // SAFETY: SQLite gives so many strings, none of which is NULL in what is asked here.
    let values = (0..count).map(|at| unsafe { CStr::from_ptr(*values.add(at)) }.to_str().unwrap());
    rows.push(values.collect::<Vec<_>>().join("|"));
    0
}

const QUERIES: &CStr = c"
    create table numbers(a integer primary key, b text);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
        insert into numbers select i, printf('%05d', i * 7) from n;
    create index by_b on numbers(b);
    select count(*), sum(a), max(b) from numbers;
    select b from numbers where b like '%77' order by b desc limit 3;
    select 2.5 * 3, datetime(0, 'unixepoch'), upper('done');
";

/// Compiles SQLite to an object.
fn compile(to: &Path) -> Vec<u8> {
    let object = to.join("sqlite3.o");
    let source = Path::new(env!("SQLITE")).join("sqlite3.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-c", "-O2", "-fPIC", "-fno-stack-protector", "-DSQLITE_THREADSAFE=0"]);
    compiler.arg("-DSQLITE_OMIT_LOAD_EXTENSION").arg(source).arg("-o").arg(&object);
    assert!(compiler.status().unwrap().success());
    std::fs::read(object).unwrap()
}

fn ask(module: &Module) -> Vec<String> {
    let symbol = |name| module.symbol(name).unwrap();
    // SAFETY: these are the functions of SQLite, which are declared so.
    let (open, exec, close): (Open, Exec, Close) = unsafe {
        (
            std::mem::transmute::<*const u8, Open>(symbol("sqlite3_open")),
            std::mem::transmute::<*const u8, Exec>(symbol("sqlite3_exec")),
            std::mem::transmute::<*const u8, Close>(symbol("sqlite3_close")),
        )
    };
    let (mut database, mut rows) = (ptr::null_mut(), Vec::new());
    assert_eq!(open(c":memory:".as_ptr(), &mut database), 0);
    assert_eq!(exec(database, QUERIES.as_ptr(), row, &mut rows, ptr::null_mut()), 0);
    assert_eq!(close(database), 0);
    rows
}

#[test]
fn sqlite_answers_from_a_store_by_every_door() {
    let directory = std::env::temp_dir().join(format!("jitcache-sqlite-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let object = compile(&directory);
    let identity = Identity::new("sqlite", *b"SQLITE", "3").unwrap();
    let key = Key::of(&identity).source(&object).finish();
    let open = || Store::open(&directory, identity.clone()).unwrap();
    let mut builder = Builder::new();
    let entry = builder.object(&object).unwrap().finish(&identity, &key).unwrap();
    entry.verify().unwrap();
    let (imports, relocations) = (entry.imports().count(), entry.relocations().len());
    println!("code {}, {imports} imports, {relocations} relocations", entry.code().len());
    open().put(&key, &entry).unwrap();
    let linker = Linker::new(|name| {
        let name = CString::new(name).ok()?;
        // SAFETY: the name is one.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!address.is_null()).then_some(address.cast_const().cast())
    });
    // SAFETY: nobody changes the file.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and it was verified.
    let unchecked = unsafe { Access::in_place_unchecked() };
    for (access, is_in_place) in [(Access::READ, false), (in_place, true), (unchecked, true)] {
        let store = open().with_access(access).with_linker(linker.clone());
        let modules = [(); 2].map(|()| store.load(&key).unwrap().hit().unwrap());
        for module in modules {
            assert_eq!(module.is_in_place(), is_in_place);
            let rows = ask(&module);
            assert_eq!(rows, ["1000|500500|07000", "06377", "05677", "04977", "7.5|1970-01-01 00:00:00|DONE"]);
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}
