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
        let ([first, second], left) = self.divided(|request| usize::from(request >= middle));
        ([first, second], left)
    }

    /// What goes before this request and after it; the request alone, and what fits into none of them.
    pub(crate) fn around(self, request: usize) -> ([Self; 2], Self, Vec<Queued>) {
        let part = |index| usize::from(index >= request) + usize::from(index > request);
        let ([first, alone, second], left) = self.divided(part);
        ([first, second], alone, left)
    }

    /// The requests of which `are_first` says so, the others, and what fits into neither parcel.
    pub(crate) fn sorted(self, are_first: &[bool]) -> ([Self; 2], Vec<Queued>) {
        self.divided(|request| usize::from(!are_first.get(request).is_some_and(|is_first| *is_first)))
    }

    /// `N` parcels, of which `part` gives the one for each request, in order; and what fits into none.
    fn divided<const N: usize>(self, part: impl Fn(usize) -> usize) -> ([Self; N], Vec<Queued>) {
        let mut parts = std::array::from_fn(|_| Self::default());
        let mut left = Vec::new();
        for (index, (request, caller)) in self.batch.into_requests().into_iter().zip(self.callers).enumerate() {
            let part: &mut Self = &mut parts[part(index)];
            match part.batch.offer(request) {
                Ok(()) => part.callers.push(caller),
                Err(request) => left.push(Queued { request, caller }),
            }
        }
        (parts, left)
    }

    /// Answers the only caller.
    pub(crate) fn answer_one(mut self, error: AppendError) {
        if let Some(caller) = self.callers.pop() {
            // The caller may have dropped its future.
            let _ = caller.answer.send(Err(error));
        }
    }

    pub(crate) fn answer_all(self, error: impl Fn() -> AppendError) {
        for caller in self.callers {
            // The caller may have dropped its future.
            let _ = caller.answer.send(Err(error()));
        }
    }
}
