//! `disasm`: the code of an entry, instruction by instruction, with what its tables say of each.

use std::ops::Range;

use jitcache::entry::SourceRow;
use jitcache::{Entry, MacKey};
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Disasm;
use crate::entries::Cache;
use crate::functions::{Function, code_length, functions};
use crate::instructions::{Instruction, Instructions};
use crate::judge::State;
use crate::out::{Failure, Out, Paint};
use crate::references::References;
use crate::source::Source;
use crate::text::hexadecimal;

pub(crate) fn run(disasm: &Disasm, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let source = disasm.source.as_deref().map(Source::read).transpose()?;
    let cache = Cache::open(&disasm.dir, out)?;
    cache.tell_passed_over(out);
    let Some(opened) = cache.read(&disasm.key, mac_key, out)? else { return Ok(Outcome::Unsound) };
    let judged = &opened.judged;
    let arch = judged.identity.as_ref().map(|identity| identity.target().arch);
    if let Some(arch) = arch.filter(|arch| Instructions::new(*arch, &[], 0, 0).is_none()) {
        return Err(Failure::Usage(format!("{}: there is no disassembler for it", arch.name())));
    }
    let error = judged.error.as_ref().map(ToString::to_string);
    let entry = opened.entry();
    let outcome = Outcome::unsound_if(judged.state.is_bad() || judged.state == State::Stale || entry.is_none());
    let listing = entry.as_ref().zip(arch).map(|(entry, arch)| Listing {
        entry,
        references: References::of(entry, arch),
        rows: entry.source_map().map(|map| map.iter().collect()).unwrap_or_default(),
        source: source.as_ref(),
        is_whole: disasm.function.is_none(),
        arch,
    });
    let mut parts = entry.as_ref().map(parts).unwrap_or_default();
    if let (Some(wanted), Some(_)) = (&disasm.function, &entry) {
        parts = chosen(parts, wanted)?;
    }
    if out.is_json {
        let members = [
            ("key", opened.key.to_string().into()),
            ("directory", opened.directory.clone().into()),
            ("state", judged.state.name().into()),
            ("error", error.into()),
            ("arch", arch.map(jitcache::Arch::name).into()),
        ];
        let mut functions = parts.iter().filter_map(|part| Some(listing.as_ref()?.as_json(part)));
        let mut try_tables = listing.iter().flat_map(Listing::try_tables).map(|(value, _)| value);
        out.json_lists(&members, &mut [("functions", &mut functions), ("try_tables", &mut try_tables)])?;
        return Ok(outcome);
    }
    if let Some(error) = error {
        out.tell(&error);
    }
    if let Some(listing) = &listing {
        for part in &parts {
            listing.print(part, out)?;
        }
        for (at, (_, text)) in listing.try_tables().enumerate() {
            out.line(&format!("try table {at}: {text}"))?;
        }
    }
    Ok(outcome)
}

/// A function, or what stands in front of them all.
struct Part {
    function: Option<Function>,
    at: Range<u64>,
}

/// Returns the functions as they lie, and whatever is in front of them.
fn parts(entry: &Entry<'_>) -> Vec<Part> {
    let mut functions = functions(entry);
    functions.sort_by_key(|function| (function.offset, function.index));
    let start = functions.first().map_or(u64::MAX, |function| function.offset).min(code_length(entry));
    let in_front = (start > 0).then_some(Part { function: None, at: 0..start });
    let functions = functions.into_iter().map(|function| {
        let at = function.offset..function.end();
        Part { function: Some(function), at }
    });
    in_front.into_iter().chain(functions).collect()
}

/// Returns the function of that number, name or byte.
fn chosen(parts: Vec<Part>, wanted: &str) -> Result<Vec<Part>, Failure> {
    let offset = wanted.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let index = wanted.parse::<usize>().ok();
    let is_wanted = |part: &Part| {
        let Some(function) = &part.function else { return false };
        match (offset, index) {
            (Some(offset), _) => part.at.contains(&offset),
            (_, Some(index)) => function.index == index,
            _ => function.name.as_deref() == Some(wanted),
        }
    };
    let count = parts.len();
    let chosen: Vec<_> = parts.into_iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        let rule = "give the number of one, its name, or the offset of a byte of its code, as in 0x1f0";
        return Err(Failure::Usage(format!("{wanted}: none of the {count} functions is that: {rule}")));
    }
    Ok(chosen)
}

struct Listing<'a> {
    entry: &'a Entry<'a>,
    references: References<'a>,
    rows: Vec<SourceRow>,
    source: Option<&'a Source>,
    is_whole: bool,
    arch: jitcache::Arch,
}

impl<'a> Listing<'a> {
    fn instructions(&self, at: &Range<u64>) -> impl Iterator<Item = Instruction> + use<'a> {
        let code = self.bytes(at);
        let in_file = self.entry.code_range().start.saturating_add(self.entry.padding());
        Instructions::new(self.arch, code, at.start, in_file).into_iter().flatten()
    }

    fn bytes(&self, at: &Range<u64>) -> &'a [u8] {
        let (start, end) = (usize::try_from(at.start), usize::try_from(at.end));
        start.ok().zip(end.ok()).and_then(|(start, end)| self.entry.code().get(start..end)).unwrap_or_default()
    }

    /// Returns the row of the source map that begins within an instruction, the last one if there are several.
    fn row_in(&self, at: &Range<u64>) -> Option<SourceRow> {
        let behind = self.rows.partition_point(|row| row.code < at.end);
        let row = self.rows.get(behind.checked_sub(1)?)?;
        (row.code >= at.start).then_some(*row)
    }

    fn source_text(&self, row: SourceRow) -> Option<String> {
        self.source.map(|source| source.at(row.source))
    }

    fn as_json(&self, part: &Part) -> Value {
        let instructions = self.instructions(&part.at).map(|instruction| {
            let row = self.row_in(&instruction.at);
            json!({
                "offset": instruction.at.start,
                "bytes": hexadecimal(self.bytes(&instruction.at)),
                "text": instruction.text,
                "source": row.map(|row| row.source),
                "source_text": row.and_then(|row| self.source_text(row)),
                "refers_to": instruction.refers_to,
                "reference": self.reference(part, &instruction),
            })
        });
        json!({
            "index": part.function.as_ref().map(|function| function.index),
            "name": part.function.as_ref().map(|function| &function.name),
            "offset": part.at.start,
            "bytes": part.at.end.saturating_sub(part.at.start),
            "instructions": instructions.collect::<Vec<_>>(),
        })
    }

    /// Tells what an instruction refers to, unless it lies in the same function.
    fn reference(&self, part: &Part, instruction: &Instruction) -> Option<String> {
        let to = instruction.refers_to.filter(|to| !part.at.contains(to) || self.references.is_stub(*to))?;
        self.references.tell(to)
    }

    fn print(&self, part: &Part, out: &mut Out) -> Result<(), Failure> {
        let length = part.at.end.saturating_sub(part.at.start);
        let what = match &part.function {
            Some(Function { index, name: Some(name), .. }) => format!("function {index}, {name}"),
            Some(Function { index, .. }) => format!("function {index}"),
            None => "in front of the functions".to_owned(),
        };
        out.parts(&[(&format!("{what}: {length} bytes at {:#x}", part.at.start), Paint::Strong)])?;
        let mut last = None;
        for instruction in self.instructions(&part.at) {
            // Instruction after instruction may be of one place.
            if let Some(row) = self.row_in(&instruction.at)
                && last.replace(row.source) != Some(row.source)
            {
                let text = self.source_text(row).map(|text| format!("  {text}")).unwrap_or_default();
                out.parts(&[(&format!("  source {:#x}{text}", row.source), Paint::Good)])?;
            }
            let bytes =
                self.bytes(&instruction.at).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            let width = if self.arch == jitcache::Arch::Arm64 { 11 } else { 23 };
            let reference = self.reference(part, &instruction).map(|reference| format!("  ; {reference}"));
            out.parts(&[
                (&format!("{:#8x}", instruction.at.start), Paint::Plain),
                (&format!("  {bytes:<width$}"), Paint::Dim),
                (&format!("  {}", instruction.text), Paint::Plain),
                (&reference.unwrap_or_default(), Paint::Odd),
            ])?;
        }
        out.line("")
    }

    /// Returns the try tables, as JSON and as text, if the whole entry is listed: it does not tell which code they are of.
    fn try_tables(&self) -> impl Iterator<Item = (Value, String)> {
        let tables = self.is_whole.then(|| self.entry.try_tables()).into_iter().flatten();
        tables.map_while(Result::ok).map(|table| {
            let clauses: Vec<_> = table.clauses().map_while(Result::ok).collect();
            let name = |kind| match kind {
                0 => "catch",
                1 => "catch_ref",
                2 => "catch_all",
                _ => "catch_all_ref",
            };
            let value = json!({
                "locals": table.locals().map(|locals| locals.count),
                "reuse": table.locals().map(|locals| locals.reuse),
                "clauses": clauses.iter().map(|clause| json!({ "kind": name(clause.kind), "tag": clause.tag }))
                    .collect::<Vec<_>>(),
            });
            let mut text: Vec<_> = clauses
                .iter()
                .map(|clause| match clause.kind {
                    0 | 1 => format!("{} tag {}", name(clause.kind), clause.tag),
                    kind => name(kind).to_owned(),
                })
                .collect();
            if let Some(locals) = table.locals() {
                let reuse = if locals.reuse { ", where the one around it keeps them" } else { "" };
                text.push(format!("{} locals{reuse}", locals.count));
            }
            (value, text.join(", "))
        })
    }
}
