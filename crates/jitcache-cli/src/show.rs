//! `show`: every field of an entry, and what it holds.

use std::ops::Range;

use jitcache::entry::Part;
use jitcache::error::Field;
use jitcache::{CpuFeatures, Entry, Identity, MacKey};
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Show;
use crate::entries::Cache;
use crate::functions::{Function, functions};
use crate::judge::State;
use crate::kinds::Kind;
use crate::out::{Failure, Out};
use crate::picture::{self, Chart, Row};
use crate::table::{Cell, Column};
use crate::text::{self, hexadecimal};

pub(crate) fn run(show: &Show, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let cache = Cache::open(&show.dir, out)?;
    cache.tell_passed_over(out);
    let Some(opened) = cache.read(&show.key, mac_key, out)? else { return Ok(Outcome::Unsound) };
    let (judged, entry) = (&opened.judged, opened.entry());
    let identity = judged.identity.as_ref();
    let shown = Shown { file: &opened.file, entry: entry.as_ref(), identity };
    let error = judged.error.as_ref().map(ToString::to_string);
    if let Some(path) = &show.svg {
        let size = format!("{} ({} bytes), {}", text::bytes(opened.bytes()), opened.bytes(), judged.state.name());
        let titles = [opened.key.to_string(), opened.directory.clone(), size];
        picture::write(path, &titles, &shown.charts(opened.bytes()))?;
    }
    if out.is_json {
        out.json(&json!({
            "key": opened.key.to_string(),
            "directory": opened.directory,
            "path": opened.path.to_string_lossy(),
            "bytes": opened.bytes(),
            "state": judged.state.name(),
            "error": error,
            "revision": identity.map(|identity| format!("{:?}", identity.revision())),
            "sealing": identity.map(|identity| identity.sealing().to_string()),
            "fields": shown.fields().map(|(field, range, value)| json!({
                "field": field.name(),
                "offset": range.start,
                "bytes": range.end.saturating_sub(range.start),
                "value": value,
            })).collect::<Vec<_>>(),
            "functions": shown.functions().iter().map(|function| json!({
                "index": function.index,
                "offset": function.offset,
                "bytes": function.bytes,
                "source": function.source,
                "name": function.name,
            })).collect::<Vec<_>>(),
            "imports": shown.imports(),
            "recipe": shown.recipe().into_iter().map(|[part, name, value]| json!({
                "part": part,
                "name": name,
                "value": value,
            })).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut head = vec![
            ("key", Cell::from(opened.key.to_string())),
            ("directory", opened.directory.clone().into()),
            ("size", format!("{} ({} bytes)", text::bytes(opened.bytes()), opened.bytes()).into()),
            ("state", Cell::new(judged.state.name(), judged.state.paint())),
        ];
        head.extend(error.map(|error| ("error", error.into())));
        let revision = identity.map(|identity| format!("{:?}, {}", identity.revision(), identity.sealing()));
        head.extend(revision.map(|revision| ("revision", revision.into())));
        out.record(head.into_iter())?;
        shown.print(out)?;
    }
    Ok(Outcome::unsound_if(judged.state.is_bad() || judged.state == State::Stale))
}

struct Shown<'a> {
    file: &'a [u8],
    entry: Option<&'a Entry<'a>>,
    identity: Option<&'a Identity>,
}

impl<'a> Shown<'a> {
    fn fields(&self) -> impl Iterator<Item = (Field, Range<u64>, String)> {
        let fields = self.entry.map(Entry::fields).unwrap_or_default();
        fields.into_iter().map(|(field, range)| {
            let value = self.value(field, &range);
            (field, range, value)
        })
    }

    fn bytes(&self, range: &Range<u64>) -> &'a [u8] {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        start.ok().zip(end.ok()).and_then(|(start, end)| self.file.get(start..end)).unwrap_or_default()
    }

    fn value(&self, field: Field, range: &Range<u64>) -> String {
        let bytes = self.bytes(range);
        let number = || {
            let mut number = [0; 16];
            number.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            u128::from_le_bytes(number)
        };
        let (length, target) = (range.end.saturating_sub(range.start), self.identity.map(Identity::target));
        match field {
            Field::Magic | Field::Version | Field::SealMagic | Field::BuildId => {
                format!("\"{}\"", bytes.escape_ascii())
            }
            Field::FunctionOffsets => format!("{} offsets", length / 8),
            Field::SourceMap => format!("{} rows", length / 16),
            Field::Code | Field::CatchClauses | Field::Section => format!("{length} bytes"),
            Field::CodeChecksum | Field::SectionTag => format!("{:#010x}", number()),
            Field::Key | Field::Digest | Field::SourceMapDigest => hexadecimal(bytes),
            Field::Arch => target.map_or_else(String::new, |target| format!("{}, {}", number(), target.arch.name())),
            Field::Os => target.map_or_else(String::new, |target| format!("{}, {}", number(), target.os.name())),
            Field::CpuFeatures if number() == 0 => "none".to_owned(),
            Field::CpuFeatures => {
                target.map_or_else(String::new, |target| CpuFeatures::from_bits(target.arch, number()).to_string())
            }
            Field::SectionFlags => if number() == 1 { "1, required" } else { "0, optional" }.to_owned(),
            Field::DigestKind => if number() == 1 { "1, MAC" } else { "0, checksum" }.to_owned(),
            _ => number().to_string(),
        }
    }

    fn functions(&self) -> Vec<Function> {
        self.entry.map(functions).unwrap_or_default()
    }

    fn imports(&self) -> Vec<Value> {
        let imports = self.entry.map(Entry::imports).unwrap_or_default();
        imports.map(|name| Value::from(name.escape_ascii().to_string())).collect()
    }

    /// Returns the parts of what the key is made of: kind, name and value of each.
    fn recipe(&self) -> Vec<[String; 3]> {
        let parts = self.entry.and_then(Entry::recipe).into_iter().flatten();
        let parts = parts.filter_map(|part| match part {
            Part::Setting { name, value } => Some(["setting", name, value].map(str::to_owned)),
            Part::Flag { name, value } => Some(["flag", name, value].map(str::to_owned)),
            Part::Source { length, digest } => {
                let value = format!("{length} bytes, SHA-256 {}", hexadecimal(&digest));
                Some(["source".to_owned(), String::new(), value])
            }
            _ => None,
        });
        parts.collect()
    }

    /// Returns pictures of the file and of its code, to scale.
    fn charts(&self, length: u64) -> Vec<Chart> {
        let fields: Vec<_> = self.fields().collect();
        let row = |name: &str, range: &Range<u64>, kind| Row {
            name: name.to_owned(),
            bars: vec![(range.clone(), kind)],
            note: format!("{} bytes at {:#x}", range.end.saturating_sub(range.start), range.start),
        };
        let bars = fields.iter().map(|(field, range, _)| (range.clone(), Kind::of(*field))).collect();
        let whole = Row { name: "file".to_owned(), bars, note: format!("{length} bytes") };
        let rows = fields.iter().map(|(field, range, _)| row(field.name(), range, Kind::of(*field)));
        let file = Chart { title: "the file".to_owned(), whole: length, rows: shortened(whole, rows) };
        let functions = self.functions();
        let code = functions.iter().map(Function::end).max().unwrap_or_default();
        let bars = functions.iter().zip([Kind::Code, Kind::Functions].into_iter().cycle());
        let bars = bars.map(|(function, kind)| (function.offset..function.end(), kind)).collect();
        let whole = Row { name: "functions".to_owned(), bars, note: format!("{code} bytes") };
        let rows =
            functions.iter().map(|function| row(&function.called(), &(function.offset..function.end()), Kind::Code));
        let functions = Chart { title: "its code".to_owned(), whole: code, rows: shortened(whole, rows) };
        vec![file, functions]
    }

    fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let Some(_) = self.entry else { return Ok(()) };
        out.line("")?;
        let [offset, bytes, source] = ["offset", "bytes", "source"].map(Column::Right);
        let fields: Vec<_> = self.fields().collect();
        let cells = fields.iter().map(|(field, range, value)| {
            let length = range.end.saturating_sub(range.start).to_string();
            [format!("{:#x}", range.start), length, field.name().to_owned(), value.clone()].map(Cell::from)
        });
        out.table([offset, bytes, Column::Left("field"), Column::Left("value")], cells)?;
        out.line("")?;
        let functions = self.functions();
        let cells = functions.iter().map(|function| {
            let source = function.source.map_or_else(|| "-".to_owned(), |source| format!("{source:#x}"));
            let [index, bytes] = [function.index.to_string(), function.bytes.to_string()];
            let name = function.name.clone().unwrap_or_default();
            [index, format!("{:#x}", function.offset), bytes, source, name].map(Cell::from)
        });
        out.table([Column::Right("function"), offset, bytes, source, Column::Left("name")], cells)?;
        for name in self.imports() {
            out.line(&format!("import {name}"))?;
        }
        let recipe = self.recipe();
        if !recipe.is_empty() {
            out.line("")?;
            let columns = ["part of the key", "name", "value"].map(Column::Left);
            out.table(columns, recipe.into_iter().map(|part| part.map(Cell::from)))?;
        }
        Ok(())
    }
}

/// Returns the first rows below the one of the whole, and how many more there are.
fn shortened(whole: Row, rows: impl ExactSizeIterator<Item = Row>) -> Vec<Row> {
    /// How many rows can be looked at.
    const MANY: usize = 100;
    let more = rows.len().saturating_sub(MANY);
    let last = Row { name: format!("and {more} more"), bars: Vec::new(), note: String::new() };
    std::iter::once(whole).chain(rows.take(MANY)).chain((more > 0).then_some(last)).collect()
}
