//! A batch on its way to the server, and those who wait for what becomes of it.

use es_core::{AppendError, Appended, write::rooms::Taken};
use tokio::sync::oneshot;

use crate::write::{batch::Batch, request::Request};

/// A request on its way, and the caller who waits for its outcome.
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) caller: Caller,
}

pub(crate) struct Caller {
    pub(crate) answer: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
    /// Room in the queue, given back with the answer.
    pub(crate) _room: Taken,
}

/// A batch, and the callers of its requests in the same order.
#[derive(Default)]
pub(crate) struct Parcel {
    pub(crate) batch: Batch,
    pub(crate) callers: Vec<Caller>,
}

impl Parcel {
    pub(crate) fn of_one(Queued { request, caller }: Queued) -> Self {
        let mut parcel = Self::default();
        if parcel.batch.offer(request).is_ok() {
            parcel.callers.push(caller);
        }
        parcel
    }

    /// Two parcels, the second to go after the first, and what fits into neither.
    pub(crate) fn halves(self) -> ([Self; 2], Vec<Queued>) {
        let middle = self.callers.len() / 2;
        let mut halves = [Self::default(), Self::default()];
        let mut left = Vec::new();
        for (index, (request, caller)) in self.batch.into_requests().into_iter().zip(self.callers).enumerate() {
            let half = &mut halves[usize::from(index >= middle)];
            match half.batch.offer(request) {
                Ok(()) => half.callers.push(caller),
                Err(request) => left.push(Queued { request, caller }),
            }
        }
        (halves, left)
    }

    pub(crate) fn answer_all(self, error: impl Fn() -> AppendError) {
        for caller in self.callers {
            // The caller may have dropped its future.
            let _ = caller.answer.send(Err(error()));
        }
    }
}
