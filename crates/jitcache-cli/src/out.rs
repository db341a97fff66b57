//! What is printed, and how: nothing from a name or a file reaches a terminal unescaped.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::Outcome;
use crate::arguments::Color;

/// Why a command ended before it was done.
pub(crate) enum Failure {
    /// Nobody reads what is printed.
    Pipe,
    /// What was asked for cannot be done, for the reason given.
    Usage(String),
}

impl Failure {
    pub(crate) fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        Self::Usage(format!("cannot {action} {}: {error}", path.display()))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Pipe,
            _ => Self::Usage(format!("cannot print: {error}")),
        }
    }
}

impl From<jitcache::Error> for Failure {
    fn from(error: jitcache::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Tells something beside what is printed.
pub(crate) fn tell(message: &str) {
    let _ = writeln!(io::stderr(), "jitcache: {}", clean(message));
}

/// Where the result of a command goes.
pub(crate) struct Out {
    to: BufWriter<StdoutLock<'static>>,
    is_colored: bool,
    pub(crate) is_json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Good,
    Odd,
    Bad,
    Dim,
    Strong,
}

impl Out {
    pub(crate) fn new(color: Color, is_json: bool) -> Self {
        let stdout = io::stdout();
        let is_colored = match color {
            Color::Auto => stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
            Color::Always => true,
            Color::Never => false,
        };
        Self { to: BufWriter::with_capacity(1 << 16, stdout.lock()), is_colored, is_json }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{}", clean(text))?)
    }

    /// Prints a line whose parts are painted.
    pub(crate) fn parts(&mut self, parts: &[(&str, Paint)]) -> Result<(), Failure> {
        for (text, paint) in parts {
            let painted = self.painted(&clean(text), *paint);
            self.to.write_all(painted.as_bytes())?;
        }
        Ok(writeln!(self.to)?)
    }

    /// Prints a value as JSON, on one line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.json_part(value)?;
        Ok(writeln!(self.to)?)
    }

    /// Prints the members of a list as JSON, one a line, so that a long one takes no memory.
    pub(crate) fn json_list(&mut self, name: &str, members: impl Iterator<Item = Value>) -> Result<(), Failure> {
        write!(self.to, "{}: [", Value::from(name))?;
        for (at, member) in members.enumerate() {
            self.to.write_all(if at == 0 { b"\n  " } else { b",\n  " })?;
            self.json_part(&member)?;
        }
        Ok(write!(self.to, "]")?)
    }

    /// Prints a member of an object, with another one behind it.
    pub(crate) fn json_member(&mut self, name: &str, value: &Value) -> Result<(), Failure> {
        write!(self.to, "{}: ", Value::from(name))?;
        self.json_part(value)?;
        self.raw(", ")
    }

    /// Prints what holds JSON together.
    pub(crate) fn raw(&mut self, text: &'static str) -> Result<(), Failure> {
        Ok(self.to.write_all(text.as_bytes())?)
    }

    /// Prints what was made of nothing but the program itself.
    pub(crate) fn made(&mut self, text: &[u8]) -> Result<Outcome, Failure> {
        self.to.write_all(text)?;
        Ok(Outcome::Fine)
    }

    fn json_part(&mut self, value: &Value) -> Result<(), Failure> {
        let mut text = String::new();
        for c in value.to_string().chars() {
            // Only in strings, where JSON has escapes for it.
            if is_clean(c) {
                text.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
        Ok(self.to.write_all(text.as_bytes())?)
    }

    /// Prints rows of cells, each column as wide as need be.
    pub(crate) fn table<const N: usize>(
        &mut self,
        head: [(&str, Side); N],
        rows: impl Iterator<Item = [(String, Paint); N]> + Clone,
    ) -> Result<(), Failure> {
        let mut widths = head.map(|(name, _)| name.len());
        for row in rows.clone() {
            for (width, (cell, _)) in widths.iter_mut().zip(&row) {
                *width = (*width).max(clean(cell).chars().count());
            }
        }
        let titles = head.map(|(name, _)| (name.to_owned(), Paint::Dim));
        for row in std::iter::once(titles).chain(rows) {
            let mut line = String::new();
            for (at, (((cell, paint), (_, side)), width)) in row.iter().zip(head).zip(widths).enumerate() {
                let cell = clean(cell);
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                if at > 0 {
                    line.push_str("  ");
                }
                let cell = self.painted(&cell, *paint);
                let (left, right) = if side == Side::Left { ("", &gap[..]) } else { (&gap[..], "") };
                let _ = write!(line, "{left}{cell}{right}");
            }
            writeln!(self.to, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn painted(&self, text: &str, paint: Paint) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Odd => "33",
            Paint::Bad => "31",
            Paint::Dim => "2",
            Paint::Strong => "1",
            Paint::Plain => "",
        };
        if self.is_colored && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

fn is_clean(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric()
}

/// Escapes whatever a terminal could take for more than a letter.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if is_clean(c) => clean.push(c),
            c => clean.extend(c.escape_default()),
        }
    }
    clean
}

/// Returns a size as people read it.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut unit = 1_u64;
    let mut name = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if bytes.checked_div(unit).unwrap_or(0) < 1024 {
            break;
        }
        (unit, name) = (unit.saturating_mul(1024), larger);
    }
    if unit == 1 {
        return format!("{bytes} B");
    }
    let tenths = bytes.saturating_mul(10).checked_div(unit).unwrap_or(0);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// Returns an age as people read it: the largest unit that is there at least twice, or seconds.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    for (unit, name) in [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")] {
        let many = seconds.checked_div(unit).unwrap_or(0);
        if many >= 2 {
            return format!("{many}{name}");
        }
    }
    format!("{seconds}s")
}
