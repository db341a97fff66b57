//! Writing addresses into instructions and data.

use crate::words::RelocationKind;

/// Writes the address of `target`, addend and all, to `bytes`, which begin at `place`: both in bytes from the start of
/// an image, whose start is one of a page.
///
/// # Errors
///
/// The rule that it breaks.
pub(super) fn patch(bytes: &mut [u8], kind: RelocationKind, place: u64, target: u64) -> Result<(), &'static str> {
    let word = bytes.first_chunk_mut::<4>().ok_or("must lie in the code or the data")?;
    let instruction = u32::from_le_bytes(*word);
    let distance = target.wrapping_sub(place).cast_signed();
    let patched = match kind {
        RelocationKind::X86PCRel4
        | RelocationKind::X86CallPCRel4
        | RelocationKind::X86CallPLTRel4
        | RelocationKind::X86GOTPCRel4
        | RelocationKind::Aarch64Prel32 => {
            i32::try_from(distance).map_err(|_| "must not reach further than 2 GiB")?.cast_unsigned()
        }
        RelocationKind::Arm64Call => {
            let words = distance >> 2;
            if words << 2 != distance || words >> 25 != words >> 63 {
                return Err("must be of a multiple of 4 and reach no further than 128 MiB");
            }
            instruction & 0xfc00_0000 | low(words.cast_unsigned(), 26)
        }
        RelocationKind::Aarch64AdrPrelPgHi21 | RelocationKind::Aarch64AdrGotPage21 => {
            let pages = (target >> 12).wrapping_sub(place >> 12).cast_signed();
            if pages >> 20 != pages >> 63 {
                return Err("must not reach further than 4 GiB");
            }
            let pages = low(pages.cast_unsigned(), 21);
            instruction & 0x9f00_001f | (pages & 3) << 29 | (pages >> 2) << 5
        }
        RelocationKind::Aarch64AddAbsLo12Nc => instruction & 0xffc0_03ff | low(target, 12) << 10,
        RelocationKind::Aarch64LdStAbsLo12Nc => {
            // Vectors of 16 bytes have a size of 0 and a bit of their own.
            let is_vector = instruction & 0x0480_0000 == 0x0480_0000;
            let shift = if is_vector { 4 } else { instruction >> 30 };
            scaled(instruction, target, shift)?
        }
        RelocationKind::Aarch64Ld64GotLo12Nc => scaled(instruction, target, 3)?,
        RelocationKind::Abs8 => return Err("must lie in data, where it is written when the entry is loaded"),
    };
    *word = patched.to_le_bytes();
    Ok(())
}

/// Puts a place within its page into an instruction that counts units of so many bits.
fn scaled(instruction: u32, target: u64, shift: u32) -> Result<u32, &'static str> {
    let within = low(target, 12);
    let units = within.checked_shr(shift).unwrap_or(0);
    if units.checked_shl(shift) != Some(within) {
        return Err("must be of a multiple of what is loaded or stored");
    }
    Ok(instruction & 0xffc0_03ff | units << 10)
}

/// Returns the lowest bits of a number, at most 32 of them.
fn low(number: u64, bits: u32) -> u32 {
    let mask = u64::MAX.checked_shr(64_u32.saturating_sub(bits)).unwrap_or(0);
    u32::try_from(number & mask).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_gets_what_the_assembler_would_put_there_or_is_refused() {
        use RelocationKind as Kind;
        for (kind, instruction, place, target, expected) in [
            (Kind::X86PCRel4, 0xffff_ffff_u32, 0x1000, 0x2000 - 4, Some(0xffc)),
            (Kind::X86CallPLTRel4, 0, 0x2000, 0x1000, Some(0xffff_f000)),
            (Kind::X86GOTPCRel4, 0, 0, 1 << 31, None),
            (Kind::Aarch64Prel32, 0, 8, 0, Some(0xffff_fff8)),
            (Kind::Arm64Call, 0x9400_0000, 0x1000, 0x1010, Some(0x9400_0004)),
            (Kind::Arm64Call, 0x1400_0000, 0x1010, 0x1000, Some(0x17ff_fffc)),
            (Kind::Arm64Call, 0x9400_0000, 0, 2, None),
            (Kind::Arm64Call, 0x9400_0000, 0, 1 << 27, None),
            (Kind::Arm64Call, 0x9400_0000, 1 << 27, 0, Some(0x9600_0000)),
            (Kind::Aarch64AdrPrelPgHi21, 0x9000_0000, 0x1ffc, 0x2000, Some(0xb000_0000)),
            (Kind::Aarch64AdrGotPage21, 0x9000_0010, 0x2000, 0x1000, Some(0xf0ff_fff0)),
            (Kind::Aarch64AdrPrelPgHi21, 0x9000_0000, 0, 1 << 32, None),
            (Kind::Aarch64AddAbsLo12Nc, 0x9100_0000, 0, 0x1fff, Some(0x913f_fc00)),
            (Kind::Aarch64LdStAbsLo12Nc, 0x3940_0000, 0, 0x1fff, Some(0x397f_fc00)),
            (Kind::Aarch64LdStAbsLo12Nc, 0xf940_0000, 0, 0x1008, Some(0xf940_0400)),
            (Kind::Aarch64LdStAbsLo12Nc, 0xf940_0000, 0, 0x1004, None),
            (Kind::Aarch64LdStAbsLo12Nc, 0x3dc0_0000, 0, 0x1010, Some(0x3dc0_0400)),
            (Kind::Aarch64Ld64GotLo12Nc, 0xf940_0210, 0, 0x1ff8, Some(0xf947_fe10)),
            (Kind::Abs8, 0, 0, 0, None),
        ] {
            let mut bytes = instruction.to_le_bytes();
            let patched = patch(&mut bytes, kind, place, target).ok().map(|()| u32::from_le_bytes(bytes));
            assert_eq!(patched, expected, "{kind:?} {place:#x} {target:#x}");
        }
    }
}
