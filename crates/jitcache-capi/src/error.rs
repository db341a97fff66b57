//! What a call came to: a number, and a text in the thread that called.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use jitcache::Error;

/// The function that compiles returned another number than 0, or is null.
pub const NOT_COMPILED: u32 = 1000;
/// Something panicked: a defect of this library.
pub const PANICKED: u32 = 1001;
/// A text is not UTF-8.
pub const NOT_TEXT: u32 = 1002;

thread_local! {
    static TEXT: RefCell<CString> = RefCell::default();
}

/// Returns the text of the last error in this thread, with what to do: until the next call of this library that fails.
#[unsafe(no_mangle)]
pub extern "C" fn jitcache_error_text() -> *const c_char {
    TEXT.with_borrow(|text| text.as_ptr())
}

/// Why a call failed.
pub(crate) enum Failure {
    Error(Error),
    NotCompiled(i32),
    NoCompiler,
    NotText,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    fn told(self) -> (u32, String) {
        match self {
            Self::Error(error) => (error.number().into(), format!("{error}. {}", error.explain())),
            Self::NotCompiled(number) => (NOT_COMPILED, format!("the engine's function returned {number}")),
            Self::NoCompiler => (NOT_COMPILED, "there is no function that compiles".to_owned()),
            Self::NotText => (NOT_TEXT, "a text is not UTF-8".to_owned()),
        }
    }
}

/// Does what a function of the interface is for, and returns what it came to.
pub(crate) fn call(action: impl FnOnce() -> Result<(), Failure>) -> u32 {
    // What a panic leaves half done is not used: a handle that is written to is written to at the end.
    let done = catch_unwind(AssertUnwindSafe(action));
    let (number, text) = match done {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure.told(),
        Err(_) => (PANICKED, "something panicked".to_owned()),
    };
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    TEXT.set(text);
    number
}

/// Returns the text that a pointer leads to.
///
/// # Safety
///
/// It ends with a zero, and lives as long as is said.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::NotText)
}

/// Returns the bytes that a pointer leads to.
///
/// # Safety
///
/// There are so many, and they live as long as is said; or there are none.
pub(crate) unsafe fn bytes<'a>(bytes: *const u8, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(bytes, length) }
}
