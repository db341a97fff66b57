//! Pages that explain results: their figures are between markers, their words are not touched.

use std::fs;
use std::path::Path;

use crate::way::Outcome;

/// Puts each block between `<!-- name -->` and `<!-- /name -->`, where a page has those.
pub fn fill(page: &Path, to: &Path, blocks: &[(&str, String)]) -> Outcome<()> {
    let mut text = fs::read_to_string(page)?;
    for (name, block) in blocks {
        let (from, to) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let Some(start) = text.find(&from).map(|at| at + from.len()) else { continue };
        let end = start + text[start..].find(&to).ok_or_else(|| format!("{} has no {to}", page.display()))?;
        let block = block.trim();
        text.replace_range(start..end, &if block.is_empty() { String::new() } else { format!("\n{block}\n\n") });
    }
    Ok(fs::write(to, text)?)
}
