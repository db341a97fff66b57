//! SQLite as entries of `jitcache`: see the test. A package of its own, because SQLite takes a minute to compile.
