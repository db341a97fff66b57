//! The loader from end to end, without running anything: what becomes executable is what the entry holds.

#![no_main]

use jitcache::{Entry, Identity, Key, Module};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for version in ["v1.9.0", "v1.12.0"] {
        let identity = Identity::wazero(version).unwrap();
        let sound = Entry::parse(file, &identity).and_then(|entry| entry.verify());
        match Module::load_file(file.to_vec().into(), &identity, &Key::from_bytes([0; 32])) {
            Ok(module) => {
                let entry = Entry::parse(file, &identity).expect("what was loaded can be parsed");
                assert_eq!(module.code(), entry.code());
                assert_eq!(module.functions(), entry.functions());
                assert_eq!(module.source_map(), entry.source_map());
                let start = module.address_range().start;
                for (i, offset) in entry.functions().iter().enumerate() {
                    let address = module.function(i).expect("every function has an address") as usize;
                    assert_eq!(address as u64, start as u64 + offset);
                    assert_eq!(module.locate(address).expect("it is in the module").function, Some(i));
                }
            }
            Err(error) => {
                assert!(error.is_rejection() || error.is_stale(), "{error}");
                assert!(sound.is_err());
            }
        }
    }
});
