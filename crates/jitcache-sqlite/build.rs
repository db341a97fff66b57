//! Tells the test where the amalgamation lies.

fn main() {
    let include = std::env::var("DEP_SQLITE3_INCLUDE").expect("libsqlite3-sys tells where its sources lie");
    println!("cargo::rustc-env=SQLITE={include}");
}
