//! A value that readers see whole and wait for nobody, while writers replace it.

use std::sync::PoisonError;
use std::{array, ptr};

use super::counted::{Counted, Inner};
use super::readers::Readers;
use super::sync::atomic::{AtomicPtr, Ordering};
use super::sync::{Mutex, MutexGuard};
use crate::error::{Error, heap};

/// A value, or none, that can be replaced while it is read.
///
/// Readers neither wait nor allocate nor free: they may be signal handlers that have interrupted anything, this
/// included. What was replaced is retired, and freed by a writer: by the one that replaced it, if nobody reads it any
/// more, or by a later one. No writer waits for a reader. One that never leaves, such as a thread that [`fork`] did not
/// take along, keeps the one value that it holds.
///
/// [`fork`]: https://man7.org/linux/man-pages/man2/fork.2.html
///
/// # Invariants
///
/// 1. `current` is null or owns its value: one count is the cell's.
/// 2. It is replaced only by who holds the lock of `retired`, which then owns what was replaced.
/// 3. What is retired keeps its owner until, at a time after it was replaced, no reader was found to hold it. By what
///    [`Readers`] promise, none will hold it again.
pub(crate) struct Shared<T> {
    current: Padded<AtomicPtr<Inner<T>>>,
    readers: Readers<Inner<T>>,
    retired: Mutex<Vec<Retired<T>>>,
}

/// Apart from what writers lock, on lines of the cache of its own.
#[repr(align(128))]
struct Padded<T>(T);

struct Retired<T> {
    value: Counted<T>,
    /// Whether the last look found somebody who reads it.
    is_held: bool,
}

impl<T> Default for Shared<T> {
    /// Returns a place without a value.
    fn default() -> Self {
        Self {
            current: Padded(AtomicPtr::new(ptr::null_mut())),
            readers: Readers::new(),
            retired: Mutex::new(Vec::new()),
        }
    }
}

impl<T> Shared<T> {
    /// Shows `look` the current value, which is kept for so long.
    pub(crate) fn read<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        let reading = self.readers.enter(&self.current.0);
        // SAFETY: what a reader holds was current after it had come in, so by invariants 1 and 3 it has an owner until
        // the reader leaves, which is when `reading` is dropped; shared values are not written.
        look(unsafe { reading.held.as_ref() }.map(|inner| &inner.value))
    }

    /// Waits for other writers, not for readers. Not to be called by a signal handler.
    pub(crate) fn write(&self) -> Writing<'_, T> {
        // A writer that panicked has left nothing half done: each step keeps the invariants.
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        Writing { shared: self, retired, freed: Freed::default() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let current = self.current.0.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: by invariant 1 the cell owns it, and readers and writers would borrow the cell.
        drop(ptr::NonNull::new(current).map(|current| unsafe { Counted::from_raw(current) }));
    }
}

/// What one writer frees at most, so that none pays for all the others.
type Freed<T> = [Option<Counted<T>>; 8];

/// The right to replace a value, which one writer has at a time.
pub(crate) struct Writing<'a, T> {
    shared: &'a Shared<T>,
    retired: MutexGuard<'a, Vec<Retired<T>>>,
    /// Dropped behind the lock, because dropping a value may take long, or write.
    freed: Freed<T>,
}

impl<T> Writing<'_, T> {
    /// Returns the current value.
    pub(crate) fn current(&self) -> Option<&T> {
        let current = self.shared.current.0.load(Ordering::Acquire);
        // SAFETY: by invariants 1 and 2 it has an owner while this has the lock and does not replace it, which would
        // take `&mut self`.
        unsafe { current.as_ref() }.map(|inner| &inner.value)
    }

    /// Replaces the value, which no reader that comes after this finds, and retires it.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], and nothing was replaced.
    pub(crate) fn replace(&mut self, value: Option<Counted<T>>) -> Result<(), Error> {
        heap::reserve(&mut self.retired, 1)?;
        let new = value.map_or(ptr::null_mut(), Counted::into_raw);
        let old = self.shared.current.0.swap(new, Ordering::SeqCst);
        if let Some(old) = ptr::NonNull::new(old) {
            // SAFETY: by invariant 1 the cell owned it, and does no more.
            let value = unsafe { Counted::from_raw(old) };
            self.retired.push(Retired { value, is_held: false });
        }
        self.collect();
        Ok(())
    }

    /// Takes what nobody reads out of what is retired.
    fn collect(&mut self) {
        let retired = &mut *self.retired;
        retired.iter_mut().for_each(|retired| retired.is_held = false);
        let are_all = self.shared.readers.held(|held| {
            retired.iter_mut().filter(|retired| retired.value.as_ptr() == held).for_each(|held| held.is_held = true);
        });
        if are_all {
            self.freed = array::from_fn(|_| {
                let at = retired.iter().position(|retired| !retired.is_held)?;
                Some(retired.swap_remove(at).value)
            });
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    impl<T> Shared<T> {
        fn set(&self, value: T) {
            self.write().replace(Some(Counted::new(value).unwrap())).unwrap();
        }
    }

    /// Calls `call` inside so many reads, all of which see `expected`.
    fn inside(shared: &Shared<Arc<u32>>, reads: u32, expected: u32, call: &mut dyn FnMut()) {
        if reads == 0 {
            return call();
        }
        shared.read(|value| {
            inside(shared, reads.saturating_sub(1), expected, call);
            assert_eq!(**value.unwrap(), expected);
        });
    }

    #[test]
    fn what_was_replaced_is_freed_at_once_if_nobody_reads_it() {
        let (shared, values) = (Shared::default(), [1, 2].map(Arc::new));
        assert!(shared.read(|value| value.is_none()));
        shared.set(Arc::clone(&values[0]));
        assert_eq!(Arc::strong_count(&values[0]), 2);
        shared.set(Arc::clone(&values[1]));
        assert_eq!(values.each_ref().map(Arc::strong_count), [1, 2]);
        assert_eq!(shared.read(|value| value.map(|value| **value)), Some(2));
        shared.write().replace(None).unwrap();
        assert!(Arc::strong_count(&values[1]) == 1 && shared.read(|value| value.is_none()));
        shared.set(Arc::clone(&values[1]));
        drop(shared);
        assert_eq!(Arc::strong_count(&values[1]), 1);
    }

    #[test]
    fn a_reader_keeps_what_it_holds_and_nothing_that_came_or_went_besides() {
        let (shared, held, next) = (Shared::default(), Arc::new(0), Arc::new(1));
        shared.set(Arc::clone(&held));
        inside(&shared, 1, 0, &mut || {
            for _ in 0..1000 {
                shared.set(Arc::clone(&next));
                inside(&shared, 3, 1, &mut || ());
            }
            assert_eq!((Arc::strong_count(&held), Arc::strong_count(&next)), (2, 2));
        });
        assert_eq!(Arc::strong_count(&held), 2, "a reader frees nothing");
        shared.set(Arc::clone(&next));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn more_readers_than_there_are_slots_for_keep_all_until_they_leave_and_each_writer_frees_a_part_then() {
        let (shared, values) = (Shared::default(), [0, 1].map(Arc::new));
        shared.set(Arc::clone(&values[0]));
        inside(&shared, 600, 0, &mut || {
            for _ in 0..100 {
                shared.set(Arc::clone(&values[1]));
                inside(&shared, 2, 1, &mut || ());
            }
        });
        let mut counts = vec![Arc::strong_count(&values[1])];
        assert!(Arc::strong_count(&values[0]) == 2 && counts[0] == 101);
        while counts.last() != Some(&2) {
            shared.set(Arc::clone(&values[1]));
            counts.push(Arc::strong_count(&values[1]));
        }
        assert!(Arc::strong_count(&values[0]) == 1 && counts.len() < 20, "{counts:?}");
    }

    #[test]
    fn a_value_that_writes_when_it_is_dropped_waits_for_nobody() {
        struct Writes(Arc<Shared<Self>>);
        impl Drop for Writes {
            fn drop(&mut self) {
                drop(self.0.write());
            }
        }
        let shared = Arc::new(Shared::default());
        shared.set(Writes(Arc::clone(&shared)));
        shared.set(Writes(Arc::clone(&shared)));
        shared.write().replace(None).unwrap();
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn readers_and_writers_at_once_see_values_that_are_whole_and_ever_newer() {
        let shared = Shared::default();
        let numbers = Arc::new(());
        let value = |n: u64| (n, vec![n; 9], Arc::clone(&numbers));
        shared.set(value(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < 20_000 {
                        last = shared.read(|value| {
                            let (n, copies, _) = value.unwrap();
                            assert!(*n >= last && copies.iter().all(|copy| copy == n));
                            *n
                        });
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < 20_000 {
                        let mut writing = shared.write();
                        last = writing.current().unwrap().0 + 1;
                        writing.replace(Some(Counted::new(value(last)).unwrap())).unwrap();
                    }
                });
            }
        });
        shared.set(value(0));
        shared.set(value(0));
        assert_eq!(Arc::strong_count(&numbers), 2);
    }

    #[test]
    #[cfg(unix)]
    fn a_child_of_fork_does_not_wait_for_readers_that_it_does_not_have_and_keeps_one_value_for_each() {
        use std::sync::mpsc::channel;
        const READERS: usize = 5;
        let (shared, held, next) = (Shared::default(), Arc::new(0), Arc::new(1));
        shared.set(Arc::clone(&held));
        thread::scope(|scope| {
            let (is_in, come_in) = channel();
            let mut leave = Vec::new();
            for _ in 0..READERS {
                let (go, gone) = channel::<()>();
                leave.push(go);
                let (is_in, shared) = (is_in.clone(), &shared);
                // Each holds a value of its own.
                shared.set(Arc::clone(&held));
                scope.spawn(move || {
                    shared.read(|_| {
                        is_in.send(()).unwrap();
                        gone.recv().unwrap_err();
                    });
                });
                come_in.recv().unwrap();
            }
            // SAFETY: the child does no more than the test, whose other threads are all in `recv`, and ends itself.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: it ends a child that hangs.
                unsafe { libc::alarm(20) };
                for _ in 0..1000 {
                    shared.set(Arc::clone(&next));
                    shared.read(|value| assert_eq!(**value.unwrap(), 1));
                }
                let is_bounded = Arc::strong_count(&next) == 2 && Arc::strong_count(&held) == 1 + READERS;
                // SAFETY: nothing of this process is to be run at its end.
                unsafe { libc::_exit(if is_bounded { 0 } else { 9 }) };
            }
            let mut status = -1;
            // SAFETY: `status` is written to.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            drop(leave);
            assert_eq!(status, 0);
        });
    }
}
