//! Machine code as text, of the architectures for which there is a disassembler.

use std::ops::Range;

use iced_x86::{DecoderOptions, Formatter as _, IntelFormatter, MemorySizeOptions, OpKind};
use jitcache::Arch;
use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{self, Opcode, Operand};

/// An instruction, or what is none.
pub(crate) struct Instruction {
    /// Where it stands, in bytes from the start of the code.
    pub(crate) at: Range<u64>,
    pub(crate) text: String,
    /// Where it jumps to or what it takes the address of, in bytes from the start of the code, wrapping.
    pub(crate) refers_to: Option<u64>,
}

/// Code that is turned into text from its start on.
pub(crate) struct Instructions<'a> {
    of: Of<'a>,
    end: u64,
}

enum Of<'a> {
    X86(Box<X86<'a>>),
    Arm64(Arm64<'a>),
}

impl<'a> Instructions<'a> {
    /// Returns the instructions of `code`, which stands at `at` in that of an entry; `None` if there is no disassembler.
    ///
    /// `in_file` is where the code of the entry begins in its file: it lies in its page in memory as there.
    pub(crate) fn new(arch: Arch, code: &'a [u8], at: u64, in_file: u64) -> Option<Self> {
        let end = at.saturating_add(u64::try_from(code.len()).unwrap_or(u64::MAX));
        let of = match arch {
            Arch::Amd64 => Of::X86(Box::new(X86::new(64, code, at))),
            Arch::X86 => Of::X86(Box::new(X86::new(32, code, at))),
            Arch::Arm64 => Of::Arm64(Arm64 { left: code, at, in_file, page: None }),
            _ => return None,
        };
        Some(Self { of, end })
    }
}

impl Iterator for Instructions<'_> {
    type Item = Instruction;

    fn next(&mut self) -> Option<Instruction> {
        match &mut self.of {
            Of::X86(x86) => x86.next(self.end),
            Of::Arm64(arm64) => arm64.next(),
        }
    }
}

struct X86<'a> {
    code: &'a [u8],
    decoder: iced_x86::Decoder<'a>,
    formatter: IntelFormatter,
}

impl<'a> X86<'a> {
    fn new(bits: u32, code: &'a [u8], at: u64) -> Self {
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_uppercase_hex(false);
        options.set_small_hex_numbers_in_decimal(false);
        options.set_branch_leading_zeros(false);
        options.set_show_branch_size(false);
        options.set_space_after_operand_separator(true);
        options.set_memory_size_options(MemorySizeOptions::Always);
        options.set_rip_relative_addresses(true);
        Self { code, decoder: iced_x86::Decoder::with_ip(bits, code, at, DecoderOptions::NONE), formatter }
    }

    fn next(&mut self, end: u64) -> Option<Instruction> {
        if !self.decoder.can_decode() {
            return None;
        }
        let at = self.decoder.ip();
        let instruction = self.decoder.decode();
        if instruction.is_invalid() {
            return Some(self.byte(at));
        }
        let mut text = String::new();
        self.formatter.format(&instruction, &mut text);
        let refers_to = match instruction.op0_kind() {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                Some(instruction.near_branch_target())
            }
            _ => instruction.is_ip_rel_memory_operand().then(|| instruction.ip_rel_memory_address()),
        };
        Some(Instruction { at: instruction.ip()..instruction.next_ip().min(end), text, refers_to })
    }
}

impl X86<'_> {
    /// Returns the byte there for one that begins no instruction, and goes on behind it.
    fn byte(&mut self, at: u64) -> Instruction {
        let behind =
            self.decoder.position().saturating_sub(usize::try_from(self.decoder.ip().wrapping_sub(at)).unwrap_or(0));
        let byte = self.code.get(behind).copied().unwrap_or_default();
        let next = at.wrapping_add(1);
        if self.decoder.set_position(behind.saturating_add(1)).is_ok() {
            self.decoder.set_ip(next);
        }
        Instruction { at: at..next, text: format!(".byte {byte:#04x}"), refers_to: None }
    }
}

struct Arm64<'a> {
    left: &'a [u8],
    at: u64,
    in_file: u64,
    /// The register that holds the address of a page, by the instruction in front, and that page.
    page: Option<(u16, u64)>,
}

impl Arm64<'_> {
    fn next(&mut self) -> Option<Instruction> {
        let Some((word, left)) = self.left.split_first_chunk::<4>() else {
            let rest = std::mem::take(&mut self.left);
            if rest.is_empty() {
                return None;
            }
            let end = self.at.saturating_add(u64::try_from(rest.len()).unwrap_or(4));
            let text = rest.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>().join(", ");
            return Some(Instruction { at: self.at..end, text: format!(".byte {text}"), refers_to: None });
        };
        self.left = left;
        let at = self.at..self.at.saturating_add(4);
        self.at = at.end;
        let decoded = a64::InstDecoder::default().decode(&mut U8Reader::new(word));
        let page = self.page.take();
        let word = u32::from_le_bytes(*word);
        let text = decoded.as_ref().ok().map(|instruction| put_right(word, instruction.to_string()));
        let (Ok(instruction), Some(mut text)) = (decoded, text.filter(|text| !text.starts_with("invalid"))) else {
            return Some(Instruction { at, text: format!(".word {word:#010x}"), refers_to: None });
        };
        let mut refers_to = None;
        for operand in &instruction.operands {
            if let Operand::PCOffset(offset) = *operand {
                let from = if instruction.opcode == Opcode::ADRP {
                    (self.in_file.wrapping_add(at.start) & !0xfff).wrapping_sub(self.in_file)
                } else {
                    at.start
                };
                let to = from.wrapping_add_signed(offset);
                // It prints the distance.
                if let Some(distance) = text.find('$') {
                    text.truncate(distance);
                    text.push_str(&format!("{to:#x}"));
                }
                refers_to = Some(to);
            }
        }
        match (instruction.opcode, &instruction.operands) {
            // What a page is for, the next instruction tells.
            (Opcode::ADRP, [Operand::Register(_, register), ..]) => {
                self.page = refers_to.take().map(|page| (*register, page));
            }
            (_, operands) => {
                if let Some((register, page)) = page {
                    refers_to = refers_to.or(within_page(operands, register).map(|at| page.wrapping_add(at)));
                }
            }
        }
        Some(Instruction { at, text, refers_to })
    }
}

/// Puts right what is printed of some instructions: `msr` has one of the first 16 registers always, `add` and the like
/// lack `uxtw` and `uxtx` or have `lsl` in their place, which is the same next to the stack pointer alone, and registers
/// of the system that code of users has do not have their names.
fn put_right(word: u32, text: String) -> String {
    const NAMES: [(&str, &str); 4] =
        [("s3_3_c4_c2_0", "nzcv"), ("s3_3_c4_c4_0", "fpcr"), ("s3_3_c4_c4_1", "fpsr"), ("s3_3_c13_c0_2", "tpidr_el0")];
    let register = |at: u32| word.wrapping_shr(at) & 31;
    if word & 0xffd0_0000 == 0xd510_0000 {
        let text = match (word & 0x0020_0000, text.rsplit_once(' ')) {
            (0, Some((front, _))) if register(0) == 31 => format!("{front} xzr"),
            (0, Some((front, _))) => format!("{front} x{}", register(0)),
            _ => text,
        };
        return NAMES.iter().fold(text, |text, (number, name)| text.replace(number, name));
    }
    let is_by_stack = register(0) == 31 && word & 0x2000_0000 == 0 || register(5) == 31;
    let extended = match word & 0x1fe0_e000 {
        0x0b20_4000 if !is_by_stack => "uxtw",
        0x0b20_6000 if !is_by_stack => "uxtx",
        _ => return text,
    };
    match text.split_once(", lsl") {
        Some((front, amount)) => format!("{front}, {extended}{amount}"),
        None if text.contains(extended) => text,
        None => format!("{text}, {extended}"),
    }
}

/// Returns which byte of a page an instruction adds to its address, or loads or stores, if the register has that.
fn within_page(operands: &[Operand; 4], register: u16) -> Option<u64> {
    match *operands {
        [_, Operand::RegPreIndex(base, offset, false), ..] | [_, _, Operand::RegPreIndex(base, offset, false), _]
            if base == register =>
        {
            u64::try_from(offset).ok()
        }
        [_, Operand::RegisterOrSP(_, base), Operand::Immediate(offset), _] if base == register => Some(offset.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(arch: Arch, code: &[u8]) -> String {
        let instructions = Instructions::new(arch, code, 0, 0).into_iter().flatten();
        instructions.map(|instruction| instruction.text).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn every_register_and_every_extension_has_its_name() {
        for (word, text) in [
            (0xd51b_443f_u32, "msr fpsr, xzr"),
            (0xd51b_4434, "msr fpsr, x20"),
            (0xd53b_4429, "mrs x9, fpsr"),
            (0xd53b_d041, "mrs x1, tpidr_el0"),
            (0x8b23_488d, "add x13, x4, w3, uxtw #2"),
            (0x8b25_6022, "add x2, x1, x5, uxtx"),
            (0x4b37_416a, "sub w10, w11, w23, uxtw"),
            (0x8b25_63e2, "add x2, sp, x5"),
            (0x8b05_0822, "add x2, x1, x5, lsl #2"),
            (0xedb8_7cde, ".word 0xedb87cde"),
        ] {
            assert_eq!(listed(Arch::Arm64, &word.to_le_bytes()), text, "{word:#x}");
        }
    }

    #[test]
    fn what_is_no_instruction_is_one_byte_or_one_word() {
        assert_eq!(listed(Arch::Amd64, &[0x06, 0x90, 0x0f]), ".byte 0x06; nop; .byte 0x0f");
        assert_eq!(listed(Arch::Arm64, &[0xff, 0xff, 0xff, 0xff, 1, 2]), ".word 0xffffffff; .byte 0x01, 0x02");
        assert!(Instructions::new(Arch::S390x, &[], 0, 0).is_none());
    }
}
