//! A panic of an application's code becomes an error of the engine that called it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// The application's code panicked. The message is not kept, because it may hold values of events and documents. The panic hook
/// of the process has printed it, with the place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panicked;

/// The result of `call`, unless it panics.
///
/// A value that it was changing may be in an invalid state, so the caller drops it. That is why unwinding is safe here.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Panicked)
}

/// As [`caught`], for a future, which is dropped when it panics.
pub(crate) async fn caught_async<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match caught(|| future.as_mut().poll(context)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}
