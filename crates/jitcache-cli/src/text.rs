//! Text as people read it, and as a terminal may have it.

use std::time::Duration;

pub(crate) fn is_clean(c: char) -> bool {
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

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    let tenths = u128::from(bytes).saturating_mul(10).checked_div(unit.into()).unwrap_or(0);
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

/// Returns how long something takes as people read it.
pub(crate) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(120) { format!("{duration:.1?}") } else { age(duration) }
}

/// Breaks a text into lines of at most `width` characters, between words where there are any.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut length) = (Vec::new(), String::new(), 0_usize);
    for word in text.split_inclusive(' ') {
        let mut word = word;
        loop {
            let letters = word.trim_end().chars().count();
            if length.saturating_add(letters) <= width {
                line.push_str(word);
                length = length.saturating_add(word.chars().count());
                break;
            }
            if length == 0 {
                // Longer than a line by itself.
                let (front, rest) =
                    word.split_at(word.char_indices().nth(width.max(1)).map_or(word.len(), |(at, _)| at));
                line.push_str(front);
                word = rest;
            }
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
            length = 0;
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_within_those_that_are_too_long() {
        for (text, lines) in [
            ("", &[""][..]),
            ("one two three", &["one two", "three"]),
            ("one-two-three", &["one-two-", "three"]),
            ("a one-two-three b", &["a", "one-two-", "three b"]),
            ("12345678 9", &["12345678", "9"]),
            ("äöüäöüäöü", &["äöüäöüäö", "ü"]),
        ] {
            assert_eq!(wrapped(text, 8), lines, "{text}");
        }
    }

    #[test]
    fn sizes_and_ages_have_the_unit_that_people_would_take() {
        for (size, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (u64::MAX, "16777215.9 TiB")]
        {
            assert_eq!(bytes(size), text);
        }
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
