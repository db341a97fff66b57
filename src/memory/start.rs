//! Where code may begin in memory.

/// Where code may begin: so many bytes behind a multiple of `alignment`, a power of two of no more than a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) alignment: usize,
    /// Less than the alignment.
    pub(crate) displacement: usize,
}
