//! Entries out of what a C compiler writes.

use std::fs;
use std::process::Command;

use jitcache::{Access, Builder, Error, Identity, Key, Linker, Module, Store};

use crate::scratch::Scratch;
use crate::skip::skip;

/// Compiles C to an object; `None`, and says so, if there is no compiler.
fn compile(test: &str, scratch: &Scratch, source: &str, options: &[&str]) -> Option<Vec<u8>> {
    let [source_at, object_at] = ["code.c", "code.o"].map(|name| scratch.path().join(name));
    fs::write(&source_at, source).unwrap();
    // The emulator of arm64 cannot start the compiler of this machine.
    let mut compiler = Command::new("cc");
    compiler.args(["-c", "-O2", "-fPIC"]).args(options).arg(&source_at).arg("-o").arg(&object_at);
    match compiler.status() {
        Ok(status) => assert!(status.success(), "{source}"),
        Err(error) => {
            skip(test, &format!("there is no C compiler: {error}"));
            return None;
        }
    }
    Some(fs::read(object_at).unwrap())
}

const SOURCE: &str = r#"
typedef unsigned long word;
extern word host_double(word);
extern const word host_table[];
word counter = 40, common;
static word zeros[1000];
const char *const names[] = {"zero", "one", "two"};
static word add(word a, word b) { return a + b; }
static word mul(word a, word b) { return a * b; }
word (*const operations[])(word, word) = {add, mul};
word *end = &zeros[1000];

word count(void) { return ++counter; }

word choose(word n) {
    switch (n) {
    case 0: return host_double(21);
    case 1: return operations[0](2, 3);
    case 2: return operations[1](2, 3);
    case 3: return names[2][1];
    case 4: return host_table[1];
    case 5: return count();
    case 6: return end - zeros;
    case 7: for (word *at = zeros; at != end; at++) *at += n; return zeros[999];
    case 8: common += 5; return common;
    default: return ~0ul;
    }
}

word call_back(word (*back)(word), word n) { return back(n) + 1; }
word (*address_of_double(void))(word) { return host_double; }
"#;

extern "C" fn host_double(number: u64) -> u64 {
    2 * number
}

static HOST_TABLE: [u64; 2] = [5, 77];

fn linker() -> Linker {
    Linker::new(|name| match name {
        "host_double" => Some(host_double as *const u8),
        "host_table" => Some(HOST_TABLE.as_ptr().cast()),
        _ => None,
    })
}

fn accesses() -> [Access; 3] {
    // SAFETY: the tests change no file.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and what is not checked is sound.
    let unchecked = unsafe { Access::in_place_unchecked() };
    [Access::READ, in_place, unchecked]
}

fn identity() -> Identity {
    Identity::new("object", *b"OBJECT", "1").unwrap()
}

fn load(object: &[u8], linker: Linker, scratch: &Scratch) -> Vec<Module> {
    let (identity, mut builder) = (identity(), Builder::new());
    let key = Key::of(&identity).source(object).finish();
    let store = Store::open(scratch.path(), identity.clone()).unwrap();
    store.put(&key, &builder.object(object).unwrap().finish(&identity, &key).unwrap()).unwrap();
    let load = |access| {
        let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
        store.with_linker(linker.clone()).load(&key).unwrap().hit().unwrap()
    };
    accesses().into_iter().map(load).collect()
}

#[test]
fn what_a_c_compiler_wrote_runs_from_a_store_with_its_data_and_what_it_imports() {
    let scratch = Scratch::new();
    for options in
        [&["-fno-stack-protector"][..], &["-fno-stack-protector", "-ffunction-sections", "-fdata-sections", "-fcommon"]]
    {
        let Some(object) = compile("what_a_c_compiler_wrote_runs", &scratch, SOURCE, options) else { return };
        for module in load(&object, linker(), &scratch) {
            type Choose = extern "C" fn(u64) -> u64;
            // SAFETY: that is what the source says.
            let choose: Choose = unsafe { std::mem::transmute(module.symbol("choose").unwrap()) };
            let chosen: Vec<_> = [0, 1, 2, 3, 4, 5, 5, 6, 7, 7, 8, 8, 9].map(|n| choose(n)).into();
            assert_eq!(chosen, [42, 5, 6, u64::from(b'w'), 77, 41, 42, 1000, 7, 14, 5, 10, u64::MAX]);
            type CallBack = extern "C" fn(Choose, u64) -> u64;
            // SAFETY: the same.
            let call_back: CallBack = unsafe { std::mem::transmute(module.symbol("call_back").unwrap()) };
            assert_eq!(call_back(host_double, 4), 9);
            // SAFETY: the same.
            let address: extern "C" fn() -> usize =
                unsafe { std::mem::transmute(module.symbol("address_of_double").unwrap()) };
            assert_eq!(address(), host_double as *const () as usize);
            let names: Vec<_> = (0..module.functions().len()).map(|at| module.function_name(at).unwrap()).collect();
            assert!(names.contains(&"add") && names.contains(&"choose"), "{names:?}");
        }
    }
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn a_panic_and_a_backtrace_pass_through_code_that_has_unwind_tables() {
    use std::cell::RefCell;
    use std::panic::{catch_unwind, panic_any};

    thread_local! {
        static FRAMES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    extern "C-unwind" fn host_double(number: u64) -> u64 {
        unsafe extern "C" {
            fn _Unwind_Backtrace(each: extern "C" fn(*mut (), *mut ()) -> i32, with: *mut ()) -> i32;
            fn _Unwind_GetIP(context: *mut ()) -> usize;
        }
        extern "C" fn each(context: *mut (), _: *mut ()) -> i32 {
            // SAFETY: the unwinder has given the context.
            let pc = unsafe { _Unwind_GetIP(context) };
            FRAMES.with_borrow_mut(|frames| frames.push(pc));
            0
        }
        // SAFETY: `each` is what it takes.
        unsafe { _Unwind_Backtrace(each, std::ptr::null_mut()) };
        if number == 21 {
            panic_any("through");
        }
        number
    }

    let scratch = Scratch::new();
    let linker = Linker::new(|name| match name {
        "host_double" => Some(host_double as *const u8),
        "host_table" => Some(HOST_TABLE.as_ptr().cast()),
        _ => None,
    });
    let options = ["-fno-stack-protector", "-fexceptions"];
    let test = "a_panic_and_a_backtrace_pass_through_code";
    let Some(object) = compile(test, &scratch, SOURCE, &options) else { return };
    for module in load(&object, linker.with_unwinding(), &scratch) {
        type CallBack = extern "C-unwind" fn(extern "C-unwind" fn(u64) -> u64, u64) -> u64;
        // SAFETY: that is what the source says.
        let call_back: CallBack = unsafe { std::mem::transmute(module.symbol("call_back").unwrap()) };
        FRAMES.with_borrow_mut(Vec::clear);
        assert_eq!(call_back(host_double, 4), 5);
        let range = module.address_range();
        let frames = FRAMES.with_borrow(Vec::clone);
        let within = frames.iter().position(|pc| range.contains(pc)).expect("the frame of the code is seen");
        assert!(frames.len() > within + 5, "and those behind it: {frames:x?} {range:x?}");
        let caught = catch_unwind(|| call_back(host_double, 21)).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"through"));
        drop(module);
        assert!(catch_unwind(|| panic_any("without")).is_err());
    }
}

#[test]
fn what_is_no_object_or_cannot_be_an_entry_is_refused_with_a_reason() {
    let scratch = Scratch::new();
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut cases = vec![(b"no object".to_vec(), ""), (own, "not relocatable")];
    let test = "what_is_no_object_or_cannot_be_an_entry";
    for (source, options, reason) in [
        ("__thread int a; int *f(void) { return &a; }", &[][..], "thread-local"),
        ("void __attribute__((constructor)) f(void) {}", &[], "constructors"),
    ] {
        let Some(object) = compile(test, &scratch, source, options) else { return };
        cases.push((object, reason));
    }
    for (object, expected) in cases {
        match Builder::new().object(&object) {
            Err(Error::Object { reason }) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        let source = "extern int a[]; int *f(void) { return a; }";
        let Some(object) = compile(test, &scratch, source, &["-fno-pic", "-mcmodel=large"]) else { return };
        let (identity, mut builder) = (identity(), Builder::new());
        let key = Key::of(&identity).source(&object).finish();
        let refused = builder.object(&object).unwrap().finish(&identity, &key).map(drop);
        assert!(matches!(refused, Err(Error::Relocation { .. })), "{refused:?}");
    }
}

#[test]
fn any_bytes_in_an_object_are_a_clean_outcome() {
    let scratch = Scratch::new();
    let Some(object) = compile("any_bytes_in_an_object", &scratch, SOURCE, &["-fno-stack-protector"]) else { return };
    let (identity, key) = (identity(), Key::from_bytes([7; 32]));
    for at in (0..object.len()).step_by(13) {
        for flip in [1, 0xff] {
            let mut object = object.clone();
            object[at] ^= flip;
            let mut builder = Builder::new();
            if builder.object(&object).is_ok() {
                let _ = builder.finish(&identity, &key);
            }
        }
    }
}
