//! What is printed, and where: nothing from a name or a file reaches a terminal unescaped.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::Outcome;
use crate::arguments::Color;
use crate::progress::Progress;
use crate::text::{clean, is_clean};

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

/// Where a program prints.
pub struct Screen {
    /// Its result.
    pub out: Box<dyn Write>,
    /// Whether a terminal shows that, which can have colours on it.
    pub is_terminal: bool,
    /// What is told beside the result.
    pub beside: Box<dyn Write + Send>,
    /// Whether a terminal shows that, which can have progress on it.
    pub is_beside_terminal: bool,
    /// How wide tables may be, in characters; as wide as need be if nothing is given.
    pub width: Option<usize>,
}

impl Screen {
    /// Returns that of this process: the standard output, and the standard error beside it.
    #[must_use]
    pub fn of_process() -> Self {
        let (out, beside) = (io::stdout(), io::stderr());
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let terminal = || terminal_size::terminal_size_of(&out).map(|(width, _)| width.0.into());
        let width = columns.or_else(terminal).filter(|width| *width > 0);
        let understands = understands_escapes();
        let (is_terminal, is_beside_terminal) = (understands && out.is_terminal(), understands && beside.is_terminal());
        Self { out: Box::new(out.lock()), is_terminal, beside: Box::new(beside), is_beside_terminal, width }
    }
}

/// Returns whether terminals take escape sequences for what they are. Those of Windows have to be asked to.
fn understands_escapes() -> bool {
    #[cfg(windows)]
    let understands = anstyle_query::windows::enable_ansi_colors() != Some(false);
    #[cfg(not(windows))]
    let understands = true;
    understands
}

/// Where the result of a command goes, and what is told beside it.
pub(crate) struct Out {
    to: BufWriter<Box<dyn Write>>,
    beside: Mutex<Box<dyn Write + Send>>,
    is_beside_terminal: bool,
    is_colored: bool,
    pub(crate) width: Option<usize>,
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
    pub(crate) fn new(screen: Screen, color: Color, is_json: bool) -> Self {
        let Screen { out, is_terminal, beside, is_beside_terminal, width } = screen;
        let is_colored = match color {
            Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
            Color::Always => true,
            Color::Never => false,
        };
        let to = BufWriter::with_capacity(1 << 16, out);
        Self { to, beside: Mutex::new(beside), is_beside_terminal, is_colored, width, is_json }
    }

    /// Tells something beside what is printed.
    pub(crate) fn tell(&self, message: &str) {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(beside, "jitcache: {}", clean(message));
    }

    /// Returns what tells on a terminal how far something is that takes a while.
    pub(crate) fn progress(&self, what: &str, entries: u64) -> Progress<'_> {
        Progress::new(self.is_beside_terminal.then_some(&self.beside), what, entries)
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.parts(&[(text, Paint::Plain)])
    }

    /// Prints a line whose parts are painted.
    pub(crate) fn parts(&mut self, parts: &[(&str, Paint)]) -> Result<(), Failure> {
        for (text, paint) in parts {
            let painted = self.painted(&clean(text), *paint);
            self.to.write_all(painted.as_bytes())?;
        }
        Ok(writeln!(self.to)?)
    }

    /// Prints a line that is clean.
    pub(crate) fn finished(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{}", line.trim_end())?)
    }

    /// Prints a value as JSON, on one line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.json_part(value)?;
        Ok(writeln!(self.to)?)
    }

    /// Prints an object as JSON: members, and then lists, with one value a line, so that a long one takes no memory.
    pub(crate) fn json_lists(
        &mut self,
        members: &[(&str, Value)],
        lists: &mut [(&str, &mut dyn Iterator<Item = Value>)],
    ) -> Result<(), Failure> {
        let mut between = "{";
        for (name, value) in members {
            write!(self.to, "{between}{}: ", Value::from(*name))?;
            self.json_part(value)?;
            between = ", ";
        }
        for (name, list) in lists {
            write!(self.to, "{between}{}: [", Value::from(*name))?;
            for (at, value) in list.enumerate() {
                self.to.write_all(if at == 0 { b"\n  " } else { b",\n  " })?;
                self.json_part(&value)?;
            }
            self.to.write_all(b"]")?;
            between = ", ";
        }
        Ok(writeln!(self.to, "}}")?)
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

    pub(crate) fn painted(&self, text: &str, paint: Paint) -> String {
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
