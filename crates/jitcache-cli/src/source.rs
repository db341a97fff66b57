//! The source that a source map points into.

use std::fs;
use std::path::Path;

use crate::out::Failure;

pub(crate) struct Source {
    bytes: Vec<u8>,
    /// Where each line begins; nothing for what is no text.
    lines: Vec<usize>,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
        let is_text = std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'));
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let lines = if is_text {
            std::iter::once(0).chain(breaks.map(|(at, _)| at.saturating_add(1))).collect()
        } else {
            Vec::new()
        };
        Ok(Self { bytes, lines })
    }

    /// Returns what stands at an offset: a line of text with its number, or else the next bytes.
    pub(crate) fn at(&self, offset: u64) -> String {
        /// How many bytes of a source that is no text are shown.
        const MANY: usize = 8;
        let rest = usize::try_from(offset).ok().filter(|offset| *offset < self.bytes.len());
        let Some(offset) = rest else { return "behind the end of the source".to_owned() };
        let number = self.lines.partition_point(|line| *line <= offset);
        if let Some(start) = number.checked_sub(1).and_then(|index| self.lines.get(index)) {
            let line = self.bytes.get(*start..).unwrap_or_default().split(|byte| *byte == b'\n').next();
            return format!("line {number}: {}", String::from_utf8_lossy(line.unwrap_or_default()).trim());
        }
        let rest = self.bytes.get(offset..).unwrap_or_default();
        rest.iter().take(MANY).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    }
}
