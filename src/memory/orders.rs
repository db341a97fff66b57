//! Readers and writers of a shared value, in every order of the steps of a few threads.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::sync::atomic::Ordering;
use super::{Counted, Shared};

/// A number that loom watches: to read it while it is dropped, or after, or without knowing that it was written, is an
/// error.
struct Watched(UnsafeCell<usize>, Arc<AtomicUsize>);

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: loom finds whoever has the cell at the same time.
        self.0.with_mut(|number| unsafe { *number = usize::MAX });
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Place {
    shared: Shared<Watched>,
    /// The last number that was written for certain.
    written: AtomicUsize,
    alive: Arc<AtomicUsize>,
}

impl Place {
    fn new() -> Arc<Self> {
        let place =
            Self { shared: Shared::default(), written: AtomicUsize::new(0), alive: Arc::new(AtomicUsize::new(0)) };
        place.set(1);
        Arc::new(place)
    }

    fn set(&self, number: usize) {
        self.alive.fetch_add(1, Ordering::Relaxed);
        let value = Counted::new(Watched(UnsafeCell::new(number), Arc::clone(&self.alive))).unwrap();
        self.shared.write().replace(Some(value)).unwrap();
        self.written.store(number, Ordering::Release);
    }

    fn read(&self) {
        let least = self.written.load(Ordering::Acquire);
        self.shared.read(|value| {
            // SAFETY: loom finds whoever writes it at the same time.
            let found = value.unwrap().0.with(|number| unsafe { *number });
            assert!((least.max(1)..=3).contains(&found), "{found} after {least}");
        });
    }

    /// Checks, when all threads have ended, that no value but the current one is left once somebody has written.
    fn end(&self) {
        self.set(3);
        assert_eq!(self.alive.load(Ordering::Relaxed), 1);
    }
}

fn threads<const N: usize>(model: loom::model::Builder, others: [fn(&Place); N], this: fn(&Place)) {
    model.check(move || {
        let place = Place::new();
        let threads = others.map(|work| {
            let place = Arc::clone(&place);
            thread::spawn(move || work(&place))
        });
        this(&place);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        place.end();
    });
}

fn bounded(preemptions: usize) -> loom::model::Builder {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model
}

#[test]
fn a_reader_that_reads_twice_beside_a_writer_that_writes_twice() {
    let twice = |place: &Place| (0..2).for_each(|_| place.read());
    threads(loom::model::Builder::new(), [twice], |place| {
        place.set(2);
        place.set(3);
    });
}

#[test]
fn two_readers_for_whom_there_is_one_slot_beside_a_writer() {
    threads(bounded(3), [Place::read, Place::read], |place| place.set(2));
}

#[test]
fn a_reader_beside_two_writers() {
    threads(bounded(3), [Place::read, |place| place.set(2)], |place| place.set(2));
}

#[test]
fn a_reader_that_a_reader_has_interrupted_beside_a_writer() {
    let nested = |place: &Place| {
        place.shared.read(|value| {
            place.read();
            // SAFETY: loom finds whoever writes it at the same time.
            assert!(value.unwrap().0.with(|number| unsafe { *number }) <= 3);
        });
    };
    threads(loom::model::Builder::new(), [nested], |place| {
        place.set(2);
        place.set(3);
    });
}
