//! Parts of an entry in memory, as they will stand in the file.

use binrw::BinWrite;
use binrw::meta::WriteEndian;

use super::view::Length;
use crate::error::{Error, heap};
use crate::format;

/// Appends a part as it will stand in the file.
pub(super) fn append<T>(file: &mut Vec<u8>, part: &T) -> Result<(), Error>
where
    T: WriteEndian + for<'w> BinWrite<Args<'w> = ()>,
{
    let mut length = Length(0);
    let counted = format::write(part, &mut length);
    heap::reserve(file, usize::try_from(length.0).unwrap_or(usize::MAX))?;
    let written = counted.and_then(|()| format::write(part, file));
    debug_assert!(written.is_ok(), "neither counting nor memory can fail to be written to: {written:?}");
    Ok(())
}
