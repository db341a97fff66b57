//! Code in a shared object, which the system's loader opens.

use std::ffi::{CStr, CString, c_void};
use std::slice;

use crate::subject::Subject;
use crate::way::{Kind, Loaded, Outcome, Way, way};

struct Library {
    handle: *mut c_void,
    code: *const u8,
    length: usize,
}

const DLOPEN: &str = "dlopen";

pub fn ways(subject: &Subject, wanted: impl Fn(&str) -> bool) -> Outcome<Option<Way>> {
    if !wanted(DLOPEN) {
        return Ok(None);
    }
    let path = subject.shared_object();
    let (name, length) = (CString::new(path.to_str().ok_or("the path is no text")?)?, subject.length);
    Ok(Some(way(Kind::Peer, DLOPEN, path, move || Library::open(&name, length))))
}

impl Library {
    fn open(path: &CStr, length: usize) -> Outcome<Self> {
        // SAFETY: the object was made by `Subject::create`; it has no initializers and needs no other object.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(format!("dlopen refused {path:?}").into());
        }
        // SAFETY: the handle is open, and the name ends with a zero.
        let code = unsafe { libc::dlsym(handle, c"code".as_ptr()) }.cast::<u8>().cast_const();
        let library = Self { handle, code, length };
        if code.is_null() { Err("the object has no code".into()) } else { Ok(library) }
    }
}

impl Loaded for Library {
    fn code(&self) -> Option<&[u8]> {
        // SAFETY: from the symbol on there are as many bytes as the file that the object was made of has, and they stay
        // mapped until this value is dropped.
        Some(unsafe { slice::from_raw_parts(self.code, self.length) })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nothing borrows from the object any more.
        unsafe { libc::dlclose(self.handle) };
    }
}
