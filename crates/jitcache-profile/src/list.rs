//! The list of object files that GDB reads, under names and in a form that GDB lays down.

#![expect(unsafe_code, reason = "this is the room for it; every block carries its proof")]

use std::cell::UnsafeCell;
use std::sync::MutexGuard;
use std::{hint, io, mem, ptr};

use crate::process::OfProcess;

/// An object file in the list (`jit_code_entry`).
#[repr(C)]
struct Node {
    next: *mut Node,
    previous: *mut Node,
    object: *const u8,
    /// In bytes.
    length: u64,
}

/// What GDB reads when it is called (`jit_descriptor`).
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    /// What the action is about.
    relevant: *mut Node,
    first: *mut Node,
}

const NONE: u32 = 0;
const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

/// Where GDB looks. Only who holds [`LOCK`] reads or writes it; GDB does while the program is stopped.
#[repr(transparent)]
struct Shared(UnsafeCell<Descriptor>);

// SAFETY: whoever looks inside holds the lock.
unsafe impl Sync for Shared {}

// SAFETY: the name is GDB's, for a value of just this form; the feature is for programs that have no other.
#[unsafe(no_mangle)]
static __jit_debug_descriptor: Shared =
    Shared(UnsafeCell::new(Descriptor { version: 1, action: NONE, relevant: ptr::null_mut(), first: ptr::null_mut() }));

/// Where GDB stops the program to read the descriptor.
// SAFETY: the name is GDB's, for a function of just this form; the feature is for programs that have no other.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn __jit_debug_register_code() {
    // What was written before is in memory, and the call is not left out.
    hint::black_box(__jit_debug_descriptor.0.get());
}

static LOCK: OfProcess<()> = OfProcess::new(());

/// Takes the right to change the list. In a child of a fork it is whole if nobody had that then, and stays as it was if
/// somebody had.
fn lock() -> io::Result<Holding> {
    LOCK.lock(|()| Ok(())).map(Holding)
}

/// The right to change the list.
struct Holding(#[expect(dead_code, reason = "it is held, and not looked at")] MutexGuard<'static, ()>);

impl Holding {
    fn descriptor(&mut self) -> &mut Descriptor {
        // SAFETY: the lock is held as long as the reference lives, and GDB looks while the program stands still.
        unsafe { &mut *__jit_debug_descriptor.0.get() }
    }

    /// Returns a node; `None` for null.
    ///
    /// # Safety
    ///
    /// The node must be in the list, or null.
    unsafe fn node(&mut self, node: *mut Node) -> Option<&mut Node> {
        // SAFETY: nodes are freed when they are out of the list, and nobody else has a reference to one of the list:
        // the lock is held as long as this one lives.
        unsafe { node.as_mut() }
    }

    fn tell(&mut self, action: u32, relevant: *mut Node) {
        let descriptor = self.descriptor();
        (descriptor.action, descriptor.relevant) = (action, relevant);
        __jit_debug_register_code();
        let descriptor = self.descriptor();
        (descriptor.action, descriptor.relevant) = (NONE, ptr::null_mut());
    }
}

/// An object file that is in the list until this is dropped.
pub(crate) struct Linked {
    node: *mut Node,
    /// What the node leads to.
    object: Vec<u8>,
}

// SAFETY: the node belongs to the value, and is changed under the lock only; any thread may drop it.
unsafe impl Send for Linked {}
// SAFETY: with a shared value nothing can be done.
unsafe impl Sync for Linked {}

/// Puts an object file into the list, and has GDB read it.
pub(crate) fn link(object: Vec<u8>) -> io::Result<Linked> {
    let mut holding = lock()?;
    let next = holding.descriptor().first;
    let length = u64::try_from(object.len()).unwrap_or(u64::MAX);
    let node = Box::into_raw(Box::new(Node { next, previous: ptr::null_mut(), object: object.as_ptr(), length }));
    // SAFETY: it is the first of the list, if there is one.
    if let Some(next) = unsafe { holding.node(next) } {
        next.previous = node;
    }
    holding.descriptor().first = node;
    holding.tell(REGISTER, node);
    Ok(Linked { node, object })
}

impl Drop for Linked {
    fn drop(&mut self) {
        let Ok(mut holding) = lock() else {
            // The list leads there for ever.
            mem::forget(mem::take(&mut self.object));
            return;
        };
        // SAFETY: `link` has put it there, and nobody else takes it out.
        let Some(&mut Node { next, previous, .. }) = (unsafe { holding.node(self.node) }) else { return };
        // SAFETY: the nodes beside one of the list are in the list.
        match unsafe { holding.node(previous) } {
            Some(previous) => previous.next = next,
            None => holding.descriptor().first = next,
        }
        // SAFETY: the nodes beside one of the list are in the list.
        if let Some(next) = unsafe { holding.node(next) } {
            next.previous = previous;
        }
        holding.tell(UNREGISTER, self.node);
        // SAFETY: the node was made by `link`, and nothing leads to it any more.
        drop(unsafe { Box::from_raw(self.node) });
    }
}
