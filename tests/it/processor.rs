//! A directory that machines with different processors share: one of them is emulated.

use std::env;
use std::process::Command;

use jitcache::{Access, Arch, Builder, Cache, CpuFeatures, Error, Identity, Key, Lookup, Module, Store};

use crate::scratch::Scratch;
use crate::skip::skip;

fn identity() -> Identity {
    Identity::new("processor", *b"PROCES", "1").unwrap()
}

/// Not a test: an engine that uses what it finds, and tells the cache nothing of it.
#[test]
#[ignore = "run by another test, in processes of its own"]
fn engine() {
    let Some(root) = env::var_os("JITCACHE_TEST_ROOT") else { return };
    let cache = Cache::open(root, identity()).unwrap();
    let key = Key::of(cache.identity()).source(b"the same").finish();
    let mut did = "loaded";
    let module = cache.get_or_compile(&key, |builder| {
        did = "compiled";
        let vectors: &[u8] = if is_x86_feature_detected!("avx512f") {
            &[0x62, 0xf1, 0x7d, 0x48, 0xef, 0xc0, 0xc5, 0xf8, 0x77] // vpxord zmm0, zmm0, zmm0; vzeroupper
        } else if is_x86_feature_detected!("avx") {
            &[0xc5, 0xfc, 0x57, 0xc0, 0xc5, 0xf8, 0x77] // vxorps ymm0, ymm0, ymm0; vzeroupper
        } else {
            &[]
        };
        builder.code([vectors, &[0xb8, 42, 0, 0, 0, 0xc3]].concat()).function(0); // mov eax, 42; ret
        Ok::<(), Error>(())
    });
    let module = module.unwrap();
    // SAFETY: the function takes nothing and returns an int, in the C calling convention.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(module.function(0).unwrap()) };
    assert_eq!(function(), 42);
    println!("the engine {did}; {} events", cache.statistics().rejected + cache.statistics().failures);
}

#[test]
fn code_for_a_better_processor_is_not_run_on_a_lesser_one_and_both_keep_their_entries() {
    if Command::new("qemu-x86_64").arg("--version").output().is_err() {
        return skip("qemu", "there is no qemu-x86_64: apt-get install qemu-user");
    }
    if !is_x86_feature_detected!("avx") {
        return skip("lesser processor", "this processor has no AVX either");
    }
    let scratch = Scratch::new();
    let lesser = ["qemu-x86_64", "-cpu", "Nehalem"];
    let runs: [(&[&str], _); 5] =
        [(&[], "compiled"), (&[], "loaded"), (&lesser, "compiled"), (&lesser, "loaded"), (&[], "loaded")];
    for (emulator, did) in runs {
        let program = env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let words = [emulator, &[program, "processor::engine", "--exact", "--ignored", "--nocapture"]].concat();
        let output =
            Command::new(words[0]).args(&words[1..]).env("JITCACHE_TEST_ROOT", scratch.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains(&format!("the engine {did}; 0 events")),
            "{emulator:?}: {output:?}"
        );
    }
    assert_eq!(Store::open(scratch.path(), identity()).unwrap().list().unwrap().count(), 2);
}

#[test]
fn an_entry_for_features_that_only_the_identity_has_is_neither_run_nor_removed() {
    let names = ["avx512er", "tbm", "kl", "sm4"];
    let there = CpuFeatures::host();
    let mut missing = names.iter().map(|name| CpuFeatures::of(Arch::Amd64, &[name]).unwrap());
    let missing = missing.find(|feature| !feature.missing_from(there).is_empty()).unwrap();
    let identity = identity().with_cpu(missing);
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity.clone()).unwrap();
    let key = Key::of(&identity).finish();
    let mut builder = Builder::new();
    builder.code(vec![0xc3]).function(0);
    let entry = builder.finish(&identity, &key).unwrap();
    let is_refused = |error| matches!(error, Error::LesserProcessor { missing: told } if told == missing);
    assert!(is_refused(Module::load(&entry).unwrap_err()));
    store.put(&key, &entry).unwrap();
    // SAFETY: nobody changes files in place here.
    for access in [Access::READ, unsafe { Access::in_place() }, unsafe { Access::in_place_unchecked() }] {
        let cache = Cache::over(Store::open(scratch.path(), identity.clone()).unwrap().with_access(access));
        assert!(is_refused(cache.store().unwrap().load(&key).unwrap_err()), "{access:?}");
        assert!(matches!(cache.get(&key), Lookup::Miss));
        // What needs less can run.
        let module = cache.get_or_compile(&Key::of(&identity).flag("for", "all").finish(), |builder| {
            builder.code(vec![0xc3]).function(0).cpu(CpuFeatures::baseline(Arch::Amd64));
            Ok::<(), Error>(())
        });
        assert!(module.is_ok());
    }
    assert!(store.path(&key).exists());
}
