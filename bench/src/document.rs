//! The page that the results are explained on: its figures are between markers, its words are not touched.

use std::fs;
use std::path::Path;

use crate::ways::Outcome;

/// Puts each block between `<!-- name -->` and `<!-- /name -->`.
pub fn fill(path: &Path, blocks: &[(&str, String)]) -> Outcome<()> {
    let mut text = fs::read_to_string(path)?;
    for (name, block) in blocks {
        let (from, to) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let start = text.find(&from).ok_or_else(|| format!("{} has no {from}", path.display()))? + from.len();
        let end = start + text[start..].find(&to).ok_or_else(|| format!("{} has no {to}", path.display()))?;
        text.replace_range(start..end, &format!("\n{}\n", block.trim_start()));
    }
    Ok(fs::write(path, text)?)
}
