//! Three functions in machine code, assembled by hand: the code that tests execute.

use jitcache::{Builder, Key};

/// The key of entries in tests that need but one.
pub const KEY: Key = Key::from_bytes([7; 32]);

/// Offsets of the functions: `add(a, b)`, `constant()`, and `next()`, which calls `constant` and adds one.
pub const FUNCTIONS: [u64; 3] = [0, 16, 32];

/// Returns the code, in which `constant()` returns `constant`.
pub fn code(constant: u16) -> Vec<u8> {
    let [low, high] = constant.to_le_bytes();
    let functions: [Vec<u8>; 3] = if cfg!(target_arch = "x86_64") {
        [
            vec![0x8d, 0x04, 0x37, 0xc3],                               // lea eax, [rdi + rsi]; ret
            vec![0xb8, low, high, 0, 0, 0xc3],                          // mov eax, constant; ret
            vec![0xe8, 0xeb, 0xff, 0xff, 0xff, 0x83, 0xc0, 0x01, 0xc3], // call constant; add eax, 1; ret
        ]
    } else if cfg!(target_arch = "x86") {
        [
            vec![0x8b, 0x44, 0x24, 0x04, 0x03, 0x44, 0x24, 0x08, 0xc3], // mov eax, [esp + 4]; add eax, [esp + 8]; ret
            vec![0xb8, low, high, 0, 0, 0xc3],                          // mov eax, constant; ret
            vec![0xe8, 0xeb, 0xff, 0xff, 0xff, 0x83, 0xc0, 0x01, 0xc3], // call constant; add eax, 1; ret
        ]
    } else if cfg!(target_arch = "aarch64") {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [
            words(&[0x0b01_0000, 0xd65f_03c0]),                            // add w0, w0, w1; ret
            words(&[0x5280_0000 | u32::from(constant) << 5, 0xd65f_03c0]), // mov w0, constant; ret
            words(&[0xa9bf_7bfd, 0x97ff_fffb, 0x1100_0400, 0xa8c1_7bfd, 0xd65f_03c0]),
            // stp x29, x30, [sp, -16]!; bl constant; add w0, w0, 1; ldp x29, x30, [sp], 16; ret
        ]
    } else if cfg!(target_arch = "arm") {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let constant = u32::from(constant);
        let (upper, lower) = ((constant & 0xf000) << 4, constant & 0x0fff);
        [
            words(&[0xe080_0001, 0xe12f_ff1e]),                 // add r0, r0, r1; bx lr
            words(&[0xe300_0000 | upper | lower, 0xe12f_ff1e]), // movw r0, constant; bx lr
            words(&[0xe92d_4010, 0xebff_fff9, 0xe280_0001, 0xe8bd_8010]),
            // push {r4, lr}; bl constant; add r0, r0, 1; pop {r4, pc}
        ]
    } else if cfg!(target_arch = "riscv64") {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let constant = u32::from(constant);
        let (upper, lower) = ((constant + 0x800) & 0x1_f000, (constant & 0xfff) << 20);
        [
            words(&[0x00b5_053b, 0x8067]),                         // addw a0, a0, a1; ret
            words(&[0x0537 | upper, 0x0005_051b | lower, 0x8067]), // lui a0, upper; addiw a0, a0, lower; ret
            words(&[0xff01_0113, 0x0011_3423, 0xfe9f_f0ef, 0x0015_051b, 0x0081_3083, 0x0101_0113, 0x8067]),
            // addi sp, sp, -16; sd ra, 8(sp); jal constant; addiw a0, a0, 1; ld ra, 8(sp); addi sp, sp, 16; ret
        ]
    } else if cfg!(target_arch = "s390x") {
        [
            vec![0xb9, 0x08, 0, 0x23, 0x07, 0xfe],         // agr %r2, %r3; br %r14
            vec![0xc0, 0x21, 0, 0, high, low, 0x07, 0xfe], // lgfi %r2, constant; br %r14
            vec![
                0xeb, 0xef, 0xf0, 0x70, 0, 0x24, 0xa7, 0xfb, 0xff,
                0x60, // stmg %r14, %r15, 112(%r15); aghi %r15, -160
                0xc0, 0xe5, 0xff, 0xff, 0xff, 0xf3, 0xa7, 0x2b, 0, 1, // brasl %r14, constant; aghi %r2, 1
                0xa7, 0xfb, 0, 0xa0, 0xe3, 0xe0, 0xf0, 0x70, 0, 0x04, 0x07,
                0xfe,
                // aghi %r15, 160; lg %r14, 112(%r15); br %r14
            ],
        ]
    } else {
        // Nobody runs it.
        [vec![1], vec![low, high], vec![2; 16]]
    };
    let mut code = Vec::new();
    for (function, offset) in functions.iter().zip(FUNCTIONS) {
        code.resize(offset as usize, 0xcc);
        code.extend(function);
    }
    code
}

/// Returns a builder of an entry of the code, with a source map: rows at the functions and behind the call in `next`.
pub fn builder(constant: u16) -> Builder<'static> {
    let mut builder = Builder::new();
    builder.code(code(constant));
    for (offset, source) in FUNCTIONS.into_iter().zip([100, 200, 300]) {
        builder.function(offset).source(offset, source);
    }
    builder.source(AFTER_CALL, 310);
    builder
}

/// Offset of the instruction that the call in `next` returns to.
pub const AFTER_CALL: u64 = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
    37
} else if cfg!(target_arch = "riscv64") {
    44
} else if cfg!(target_arch = "s390x") {
    48
} else {
    40
};

#[cfg(feature = "cache")]
pub use calls::{add, constant, next};

#[cfg(feature = "cache")]
mod calls {
    use std::mem::transmute;

    use jitcache::Module;

    // Also where C has another.
    #[cfg(target_arch = "x86_64")]
    type Add = extern "sysv64" fn(i32, i32) -> i32;
    #[cfg(not(target_arch = "x86_64"))]
    type Add = extern "C" fn(i32, i32) -> i32;

    pub fn add(module: &Module, a: i32, b: i32) -> i32 {
        // SAFETY: function 0 of `code` takes two integers and returns one, in Unix's calling convention.
        let add: Add = unsafe { transmute(module.function(0).unwrap()) };
        add(a, b)
    }

    pub fn constant(module: &Module) -> i32 {
        call(module, 1)
    }

    pub fn next(module: &Module) -> i32 {
        call(module, 2)
    }

    fn call(module: &Module, function: usize) -> i32 {
        // SAFETY: functions 1 and 2 of `code` take nothing and return an integer, in the C calling convention.
        let function: extern "C" fn() -> i32 = unsafe { transmute(module.function(function).unwrap()) };
        function()
    }
}
