//! What GDB reads, as `object` reads it.

use std::thread;

use jitcache::Module;
use jitcache_profile::gdb::{self, Registered};
use object::read::elf::{ElfFile, FileHeader};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::kit::{self, module};

/// The interface as GDB lays it down.
#[repr(C)]
struct Node {
    next: *const Node,
    previous: *const Node,
    object: *const u8,
    length: u64,
}

#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *const Node,
    first: *const Node,
}

unsafe extern "C" {
    #[link_name = "__jit_debug_descriptor"]
    static mut DESCRIPTOR: Descriptor;
}

/// Returns the object files in the list, the last one first. No other thread may change it meanwhile.
fn listed() -> Vec<Vec<u8>> {
    let (mut objects, mut before) = (Vec::new(), std::ptr::null());
    let descriptor = &raw const DESCRIPTOR;
    // SAFETY: the library has it, and nobody writes to it now.
    let descriptor = unsafe { descriptor.read() };
    assert_eq!((descriptor.version, descriptor.action), (1, 0));
    assert!(descriptor.relevant.is_null());
    let mut at = descriptor.first;
    // SAFETY: what is in the list is there.
    while let Some(node) = unsafe { at.as_ref() } {
        assert_eq!(node.previous, before);
        // SAFETY: so is the object of a node.
        objects.push(unsafe { std::slice::from_raw_parts(node.object, node.length as usize) }.to_vec());
        (before, at) = (at, node.next);
    }
    objects
}

#[cfg(target_pointer_width = "64")]
type Header = object::elf::FileHeader64<object::NativeEndian>;
#[cfg(target_pointer_width = "32")]
type Header = object::elf::FileHeader32<object::NativeEndian>;

/// Returns address, length and name of the functions in an object file, after checking that it is one of a module.
fn symbols(object: &[u8], module: &Module) -> Vec<(u64, u64, String)> {
    let object = ElfFile::<Header>::parse(object).unwrap();
    let endian = object.endian();
    assert_eq!(object.elf_header().e_type(endian), object::elf::ET_EXEC);
    assert_eq!(object.architecture(), host());
    let text = object.section_by_name(".text").unwrap();
    let range = module.address_range();
    assert_eq!((text.address(), text.size()), (range.start as u64, range.len() as u64));
    let names: Vec<_> = object.sections().map(|section| section.name().unwrap().to_owned()).collect();
    assert_eq!(names, [".text", ".symtab", ".strtab", ".shstrtab"]);
    let symbol = |symbol: object::read::elf::ElfSymbol<'_, '_, Header>| {
        assert_eq!((symbol.kind(), symbol.is_global()), (object::SymbolKind::Text, true));
        assert_eq!(symbol.section_index(), Some(text.index()));
        (symbol.address() - range.start as u64, symbol.size(), symbol.name().unwrap().to_owned())
    };
    object.symbols().map(symbol).collect()
}

/// Returns the architecture that this very program says it is of.
fn host() -> object::Architecture {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    ElfFile::<Header>::parse(&*program).unwrap().architecture()
}

#[test]
fn an_object_has_a_symbol_for_each_function_and_goes_with_its_module() {
    if !kit::is_role("symbols") {
        return kit::alone("gdb::an_object_has_a_symbol_for_each_function_and_goes_with_its_module", "symbols");
    }
    assert!(listed().is_empty());
    let first = module(64, &[(0, None), (16, Some((5, "add\nall"))), (32, Some((0, "main")))]);
    let second = module(9000, &[]);
    let last = module(9000, &[(8990, None)]);
    for (module, prefix) in [(&first, "a"), (&second, "b"), (&last, "c")] {
        module.attach(gdb::register(module, prefix).unwrap()).unwrap();
        assert!(module.attached::<Registered>().is_some());
    }
    let objects = listed();
    assert_eq!(objects.len(), 3);
    let of = |expected: &[(u64, u64, &str)]| -> Vec<_> {
        expected.iter().map(|(at, length, name)| (*at, *length, (*name).to_owned())).collect()
    };
    assert_eq!(symbols(&objects[2], &first), of(&[(0, 16, "a[0]"), (16, 5, "add?all"), (32, 32, "main")]));
    assert_eq!(symbols(&objects[1], &second), of(&[]));
    assert_eq!(symbols(&objects[0], &last), of(&[(8990, 10, "c[0]")]));
    drop(second);
    assert_eq!(listed(), [&*objects[0], &*objects[2]]);
    drop(last);
    assert_eq!(listed(), [&*objects[2]]);
    let child = kit::fork(|| {
        drop(gdb::register(&first, "child").unwrap());
        listed() == [&*objects[2]]
    });
    assert!(child > 0);
    drop(first);
    assert!(listed().is_empty());
}

#[test]
fn threads_leave_the_list_whole() {
    if !kit::is_role("threads") {
        return kit::alone("gdb::threads_leave_the_list_whole", "threads");
    }
    let stays = module(64, &[(0, None)]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut registered = Vec::new();
                for nth in 0..100_usize {
                    registered.push(gdb::register(&stays, "of a thread").unwrap());
                    if nth % 3 == 0 {
                        drop(registered.swap_remove(nth / 7));
                    }
                }
            });
        }
        let registered = scope.spawn(|| gdb::register(&stays, "stays").unwrap()).join().unwrap();
        stays.attach(registered).unwrap();
    });
    let objects = listed();
    assert_eq!(objects.len(), 1);
    assert_eq!(symbols(&objects[0], &stays), [(0, 64, "stays[0]".to_owned())]);
}
