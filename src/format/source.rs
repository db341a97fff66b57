//! The file as the schema's reader, and what it says where the file ends too early.

use std::io::{self, Read, Seek, SeekFrom};

use binrw::error::BacktraceFrame;

use super::run::{Run, Short};
use crate::error::{Error, Field};
use crate::words::size;

/// The file as the schema reads it: a failing read tells where it began and how much it wanted.
pub(super) struct Source<'a> {
    file: Run<'a>,
    at: u64,
}

impl<'a> Source<'a> {
    pub(super) const fn new(file: Run<'a>, at: u64) -> Self {
        Self { file, at }
    }

    pub(super) const fn position(&self) -> u64 {
        self.at
    }
}

impl Read for Source<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.read_exact(to)?;
        Ok(to.len())
    }

    #[inline]
    fn read_exact(&mut self, to: &mut [u8]) -> io::Result<()> {
        let bytes = self.file.run(self.at, size(to))?;
        to.copy_from_slice(bytes);
        self.at = self.at.saturating_add(size(bytes));
        Ok(())
    }
}

impl Seek for Source<'_> {
    /// Goes where the schema goes: to an offset it has computed from the start.
    #[inline]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => self.at = at,
            SeekFrom::Current(0) => {}
            SeekFrom::Current(_) | SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(self.at)
    }
}

/// Says of a failed read in `file` which field it was, where, and how much was there.
pub(super) fn truncation(error: &binrw::Error, file: Run<'_>) -> Error {
    let field = match error {
        binrw::Error::Backtrace(backtrace) => backtrace.frames.iter().find_map(|frame| match frame {
            BacktraceFrame::Custom(field) => field.downcast_ref::<Field>().copied(),
            _ => None,
        }),
        _ => None,
    };
    let short = match error.root_cause() {
        binrw::Error::Io(error) => error.get_ref().and_then(|error| error.downcast_ref::<Short>()),
        _ => None,
    };
    let &Short { at, expected } = short.unwrap_or(&Short { at: file.length(), expected: 1 });
    // Every read of the schema names its field, and nothing but the end of the file makes one fail.
    debug_assert!(field.is_some() && short.is_some(), "{error}");
    let field = field.unwrap_or(Field::Magic);
    Error::Truncated { field, at: file.at().saturating_add(at), expected, found: file.length().saturating_sub(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_all_that_it_wants_or_tells_what_is_not_there() {
        for is_exact in [false, true] {
            let mut source = Source::new(Run::new(b"abcde"), 1);
            let mut read = |to: &mut [u8; 3]| {
                let read = if is_exact { source.read_exact(to).map(|()| 3) } else { source.read(to) };
                (read.map_err(|error| error.to_string()), source.position())
            };
            let mut to = [0; 3];
            assert_eq!((read(&mut to), &to), ((Ok(3), 4), b"bcd"));
            assert_eq!(read(&mut to), (Err("3 bytes at 0x4 are not there".into()), 4));
        }
    }
}
