//! Futures that are finished also if their caller drops them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{runtime::Handle, sync::Semaphore};

/// The largest number of dropped appends of a repository that are being finished at a time (R17).
pub(super) const MOST_ABANDONED: usize = 1_024;

/// A future that is finished by a task of its own if it is dropped after it was polled.
///
/// The next command in the line sees a decision as soon as it was sent to the store. So the append must be finished: a store may
/// leave out an append whose caller was dropped, and then all later decisions on it would be refused.
pub(super) struct Finished<T: Send + 'static> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    was_polled: bool,
    abandoned: Arc<Semaphore>,
}

impl<T: Send + 'static> Finished<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static, abandoned: Arc<Semaphore>) -> Self {
        Self { future: Some(Box::pin(future)), was_polled: false, abandoned }
    }
}

impl<T: Send + 'static> Future for Finished<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.was_polled = true;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let outcome = future.as_mut().poll(context);
        if outcome.is_ready() {
            self.future = None;
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for Finished<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take()
            && self.was_polled
            && let Ok(runtime) = Handle::try_current()
            && let Ok(place) = self.abandoned.clone().try_acquire_owned()
        {
            runtime.spawn(async move {
                future.await;
                drop(place);
            });
        }
    }
}
