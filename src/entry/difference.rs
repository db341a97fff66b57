//! In what two recipes differ.

use std::cmp::Ordering;
use std::fmt;

use super::parts::{Part, Parts};
use super::recipe::hexadecimal;

/// A part in which what was found differs from what was wanted. As text, what a file says is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What kind of part it is.
    pub what: What,
    /// Its name; empty for a source and an order.
    pub name: Box<str>,
    /// What was wanted, if anything was; of a source, its length and its SHA-256.
    pub wanted: Option<Box<str>>,
    /// What was found, if anything was.
    pub found: Option<Box<str>>,
}

/// The kinds of what recipes differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum What {
    /// Something that the identity says.
    Setting,
    /// A flag.
    Flag,
    /// A source.
    Source,
    /// The order of parts that are the same.
    Order,
}

impl<'a> Parts<'a> {
    /// Returns in what others differ from these, which are wanted: sorted by kind and name, and those of one kind and
    /// name compared in their order.
    #[must_use]
    pub fn differences(&self, found: &Parts<'_>) -> Vec<Difference> {
        let (mut wanted, mut there) = (self.sorted().into_iter().peekable(), found.sorted().into_iter().peekable());
        let mut differences = Vec::new();
        loop {
            let order = match (wanted.peek(), there.peek()) {
                (Some(wanted), Some(there)) => label(wanted).cmp(&label(there)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let wanted = if order.is_le() { wanted.next() } else { None };
            let there = if order.is_ge() { there.next() } else { None };
            let Some((what, name)) = wanted.as_ref().or(there.as_ref()).map(label) else { break };
            if wanted != there {
                let [wanted, found] = [&wanted, &there].map(|part| part.as_ref().map(value));
                differences.push(Difference { what, name: name.into(), wanted, found });
            }
        }
        if differences.is_empty() && !self.clone().eq(found.clone()) {
            differences.push(Difference { what: What::Order, name: "".into(), wanted: None, found: None });
        }
        differences
    }

    fn sorted(&self) -> Vec<Part<'a>> {
        let mut parts: Vec<_> = self.clone().collect();
        parts.sort_by(|one, two| label(one).cmp(&label(two)));
        parts
    }
}

/// Returns the kind and the name of a part.
fn label<'a>(part: &Part<'a>) -> (What, &'a str) {
    match *part {
        Part::Setting { name, .. } => (What::Setting, name),
        Part::Flag { name, .. } => (What::Flag, name),
        Part::Source { .. } => (What::Source, ""),
    }
}

fn value(part: &Part<'_>) -> Box<str> {
    match part {
        Part::Setting { value, .. } | Part::Flag { value, .. } => (*value).into(),
        Part::Source { length, digest } => format!("{length} bytes, SHA-256 {}", hexadecimal(digest)).into(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Setting => write!(f, "{}: ", self.name.escape_debug())?,
            What::Flag => write!(f, "flag {}: ", self.name.escape_debug())?,
            What::Source => f.write_str("source: ")?,
            What::Order => return f.write_str("the same parts in another order"),
        }
        let [wanted, found] = [&self.wanted, &self.found].map(Option::as_deref);
        if let (Some(wanted), Some(found), What::Setting) = (wanted, found, self.what)
            && (wanted.contains(", ") || found.contains(", "))
        {
            // Of long lists, what is in one alone.
            let only = |these: &str, others: &str| {
                let only = these.split(", ").filter(|part| !others.split(", ").any(|other| other == *part));
                let only: Vec<_> = only.map(|part| part.escape_debug().to_string()).collect();
                if only.is_empty() { "none".to_owned() } else { only.join(", ") }
            };
            return write!(f, "wanted alone {}, found alone {}", only(wanted, found), only(found, wanted));
        }
        let shown = |part: Option<&str>| part.map_or("none".to_owned(), |part| format!("{part:?}"));
        write!(f, "wanted {}, found {}", shown(wanted), shown(found))
    }
}
