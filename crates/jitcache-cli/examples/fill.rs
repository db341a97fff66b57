//! Fills a cache, to measure the tool on: `cargo run --release --example fill DIR ENTRIES BYTES` writes so many sealed
//! entries, with so many bytes of code each.

use std::error::Error;

use jitcache::{Builder, Identity, Key, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, entries, bytes] = &arguments[..] else { return Err("give a directory, entries and bytes".into()) };
    let (entries, bytes): (u32, usize) = (entries.parse()?, bytes.parse()?);
    let identity = Identity::new("fill", *b"FILLED", "1.0")?;
    let store = Store::open(root, identity.clone())?;
    for number in 0..entries {
        let key = Key::of(&identity).source(&number.to_le_bytes()).finish();
        let mut code = vec![0xc3; bytes];
        code.splice(..bytes.min(4), number.to_le_bytes());
        let mut builder = Builder::new();
        builder.code(code).function(0);
        store.put(&key, &builder.finish(&identity, &key)?)?;
    }
    Ok(())
}
