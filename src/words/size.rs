//! Sizes in bytes.

/// How much code is copied or read before it is checked, in bytes: small enough to be in the cache still.
pub(crate) const STEP: usize = 256 * 1024;

/// Returns the size of a run of bytes as the format counts it.
pub(crate) fn size(bytes: &[u8]) -> u64 {
    // No machine has a usize wider than 64 bits; the bound keeps that assumption out of the arithmetic.
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
