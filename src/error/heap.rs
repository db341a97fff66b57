//! Memory of the heap for what a file or an engine decides the length of: there may be none.

use std::collections::TryReserveError;

use super::Error;

/// Makes room in `to` for `more` elements.
///
/// # Errors
///
/// [`Error::Memory`], and `to` is as it was.
pub(crate) fn reserve<T>(to: &mut Vec<T>, more: usize) -> Result<(), Error> {
    to.try_reserve(more).map_err(refused::<T>(to.len().saturating_add(more)))
}

/// Appends a copy of `more` to `to`.
///
/// # Errors
///
/// [`Error::Memory`], and `to` is as it was.
pub(crate) fn append<T: Clone>(to: &mut Vec<T>, more: &[T]) -> Result<(), Error> {
    reserve(to, more.len())?;
    to.extend_from_slice(more);
    Ok(())
}

/// Returns the error for so many elements that there is no room for.
pub(crate) fn refused<T>(count: usize) -> impl FnOnce(TryReserveError) -> Error {
    let length = u64::try_from(count.saturating_mul(size_of::<T>())).unwrap_or(u64::MAX);
    move |source| Error::Memory { action: "allocate", length, source: source.into() }
}
