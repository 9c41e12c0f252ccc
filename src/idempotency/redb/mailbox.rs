//! How callers reach the writer thread: a bounded queue they wait for without blocking, and one answer each.
//!
//! Only the standard library, so that the store works under any runtime and under none.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A bounded queue from many futures to one thread.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    closed: bool,
    /// Who found the queue full. Each future stands here at most once; all are woken when the thread takes a batch.
    waiting: Vec<Arc<Waiter>>,
}

#[derive(Debug, Default)]
struct Waiter(Mutex<Option<Waker>>);

impl Waiter {
    /// Sets who to wake; whether the waiter stands in the list still.
    fn register(&self, cx: &Context<'_>) {
        *lock(&self.0) = Some(cx.waker().clone());
    }
}

/// The mailbox was closed.
#[derive(Debug)]
pub(super) struct Closed;

impl<T> Mailbox<T> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { queue: VecDeque::new(), closed: false, waiting: Vec::new() };
        Self { state: Mutex::new(state), filled: Condvar::new(), limit: limit.max(1) }
    }

    /// Puts an item in, waiting for room. Dropped before it is done, nothing was put in.
    pub(super) async fn push(&self, item: T) -> Result<(), Closed> {
        let mut item = Some(item);
        let mut waiter: Option<Arc<Waiter>> = None;
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.closed {
                return Poll::Ready(Err(Closed));
            }
            if state.queue.len() < self.limit {
                state.queue.extend(item.take());
                self.filled.notify_one();
                return Poll::Ready(Ok(()));
            }
            match &waiter {
                // Two references: this one and the list's.
                Some(known) if Arc::strong_count(known) > 1 => known.register(cx),
                Some(_) | None => {
                    let new = Arc::new(Waiter::default());
                    new.register(cx);
                    state.waiting.push(Arc::clone(&new));
                    waiter = Some(new);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for items and moves up to `most` of them into `batch`; `false` when closed and empty.
    pub(super) fn take(&self, most: usize, batch: &mut Vec<T>) -> bool {
        let mut state = lock(&self.state);
        while state.queue.is_empty() {
            if state.closed {
                return false;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let most = most.min(state.queue.len());
        batch.extend(state.queue.drain(..most));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        wake(waiting);
        true
    }

    /// Takes no more items. Those inside are still handed out by [`take`](Self::take).
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.filled.notify_all();
        wake(waiting);
    }

    /// Closes and drops the items inside: for a thread that ends unexpectedly.
    pub(super) fn abandon(&self) {
        self.close();
        let left = std::mem::take(&mut lock(&self.state).queue);
        drop(left);
    }
}

fn wake(waiting: Vec<Arc<Waiter>>) {
    for waiter in waiting {
        let waker = lock(&waiter.0).take();
        // Off the list before the wake, so that the future that polls again sees it.
        drop(waiter);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Where the thread puts one answer. Dropped without one, the caller learns that it will not come.
#[derive(Debug)]
pub(super) struct Answer<T>(Arc<Mutex<Slot<T>>>);

/// The future of one answer; `None` when the thread ended without one.
#[derive(Debug)]
pub(super) struct Answered<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    Waiting(Option<Waker>),
    Done(Option<T>),
}

pub(super) fn answer<T>() -> (Answer<T>, Answered<T>) {
    let slot = Arc::new(Mutex::new(Slot::Waiting(None)));
    (Answer(Arc::clone(&slot)), Answered(slot))
}

impl<T> Answer<T> {
    pub(super) fn send(self, value: T) {
        self.put(Some(value));
    }

    fn put(&self, value: Option<T>) {
        let mut slot = lock(&self.0);
        let waker = match &mut *slot {
            Slot::Waiting(waker) => waker.take(),
            Slot::Done(_) => return,
        };
        *slot = Slot::Done(value);
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        // Does nothing after `send`.
        self.put(None);
    }
}

impl<T> Future for Answered<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut *lock(&self.0) {
            Slot::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Slot::Done(value) => Poll::Ready(value.take()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn a_full_mailbox_makes_callers_wait_and_wakes_each_once() {
        let mailbox = Mailbox::new(2);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut first = Box::pin(mailbox.push(1));
        let mut second = Box::pin(mailbox.push(2));
        let mut third = Box::pin(mailbox.push(3));
        assert!(first.as_mut().poll(&mut cx).is_ready());
        assert!(second.as_mut().poll(&mut cx).is_ready());
        for _ in 0..5 {
            assert!(third.as_mut().poll(&mut cx).is_pending());
        }
        let mut batch = Vec::new();
        assert!(mailbox.take(10, &mut batch));
        assert_eq!(batch, [1, 2]);
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1, "polled five times, listed once");
        assert!(third.as_mut().poll(&mut cx).is_ready());
        mailbox.close();
        assert!(mailbox.take(10, &mut batch) && !mailbox.take(10, &mut batch));
        assert_eq!(batch, [1, 2, 3], "what was inside when it closed is still handed out");
    }

    #[test]
    fn an_answer_that_never_comes_ends_the_wait() {
        let (answer, mut answered) = answer::<u8>();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut answered).poll(&mut cx).is_pending());
        drop(answer);
        assert_eq!(Pin::new(&mut answered).poll(&mut cx), Poll::Ready(None));
    }
}
