//! Room for appends that wait to be written, bounded in bytes (R17). A backend has one [`Rooms`] in front of its queue.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::stream::StreamId;

/// An append of more bytes than this is large: it is written apart from the others.
pub const LARGE_BYTES: usize = 1024 * 1024;

/// Appends wait here while the queue holds too many bytes. Large ones have a room of their own, so that the others do not wait for
/// them.
///
/// Appends to one stream usually stay in order: while one of them waits for a room, the later ones wait for the same room. (An
/// append that has just got its room may be overtaken, and so may one to several streams that wait for different rooms. That
/// causes a conflict and a retry, but no wrong write, since the store checks what each append expects.)
#[derive(Debug)]
pub struct Rooms {
    small: Room,
    large: Room,
    entering: Entering,
}

#[derive(Debug)]
struct Room {
    most: u32,
    bytes: Arc<Semaphore>,
}

/// For each stream to which an append waits for a room: whether that is the large one, and how many such appends there are.
type Entering = Mutex<HashMap<StreamId, (bool, usize)>>;

/// The room that an append takes until its outcome. It is released when this is dropped.
#[derive(Debug)]
pub struct Taken {
    _bytes: OwnedSemaphorePermit,
}

/// An append on its way into the queue. Once it is dropped, later appends to its streams do not wait for it any more.
pub struct Entrance<'a> {
    rooms: &'a Rooms,
    /// The streams for which it was noted.
    streams: Vec<StreamId>,
    is_large: bool,
    bytes: u32,
    taken: Option<Taken>,
}

impl Rooms {
    /// Rooms of these sizes in bytes. An append that is larger than its room waits for the whole room.
    pub fn new(small_bytes: usize, large_bytes: usize) -> Self {
        Self { small: Room::of(small_bytes), large: Room::of(large_bytes), entering: Mutex::default() }
    }

    /// Takes its place in the order of the appends to `streams`, and keeps it until the entrance is dropped.
    pub fn enter<'s>(&self, streams: impl Iterator<Item = &'s StreamId> + Clone, bytes: usize) -> Entrance<'_> {
        let mut entering = self.entering.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if entering.is_empty() { None } else { streams.clone().find_map(|stream| entering.get(stream)) };
        let is_large = before.map_or(bytes > LARGE_BYTES, |(is_large, _)| *is_large);
        let room = self.room(is_large);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(room.most);
        let taken = match before {
            None => room.bytes.clone().try_acquire_many_owned(bytes).ok(),
            Some(_) => None,
        };
        // An append that waits for no room need not be noted: the queue keeps its place.
        let streams: Vec<_> = if taken.is_some() { Vec::new() } else { streams.cloned().collect() };
        for stream in &streams {
            entering.entry(stream.clone()).or_insert((is_large, 0)).1 += 1;
        }
        drop(entering);
        let taken = taken.map(|bytes| Taken { _bytes: bytes });
        Entrance { rooms: self, streams, is_large, bytes, taken }
    }

    /// Refuses further appends.
    pub fn close(&self) {
        self.small.bytes.close();
        self.large.bytes.close();
    }

    fn room(&self, is_large: bool) -> &Room {
        if is_large { &self.large } else { &self.small }
    }
}

impl Room {
    fn of(bytes: usize) -> Self {
        let bytes = bytes.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Self { most: u32::try_from(bytes).unwrap_or(u32::MAX), bytes: Arc::new(Semaphore::new(bytes)) }
    }
}

impl Entrance<'_> {
    /// The room that the append needs, once it is there; `None` if the rooms were closed.
    ///
    /// # Cancel safety
    /// Dropping the future and the entrance leaves nothing.
    pub async fn room(&mut self) -> Option<Taken> {
        if let Some(taken) = self.taken.take() {
            return Some(taken);
        }
        let room = self.rooms.room(self.is_large);
        let bytes = room.bytes.clone().acquire_many_owned(self.bytes).await.ok()?;
        Some(Taken { _bytes: bytes })
    }
}

impl Drop for Entrance<'_> {
    fn drop(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let mut entering = self.rooms.entering.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in &self.streams {
            if let Some((_, waiting)) = entering.get_mut(stream) {
                *waiting -= 1;
                if *waiting == 0 {
                    entering.remove(stream);
                }
            }
        }
    }
}

impl fmt::Debug for Entrance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").field("is_large", &self.is_large).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::{
        iter,
        task::{Context, Poll, Waker},
    };

    use super::{LARGE_BYTES, Rooms};
    use crate::stream::StreamId;

    /// Which of `appends` (to a stream, of so many bytes) find room, one after the other, while none goes.
    fn entered<const N: usize>(rooms: &Rooms, appends: [(&str, usize); N]) -> [bool; N] {
        let mut kept = Vec::new();
        let mut entered = [false; N];
        for (entered, (id, bytes)) in entered.iter_mut().zip(appends) {
            let stream = StreamId::new("test", id).unwrap();
            let mut waiting = Box::pin(async move {
                let mut entrance = rooms.enter(iter::once(&stream), bytes);
                let room = entrance.room().await;
                (room, entrance)
            });
            match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready((room, _entrance)) => {
                    *entered = true;
                    kept.push(Ok(room));
                }
                Poll::Pending => kept.push(Err(waiting)),
            }
        }
        drop(kept);
        assert!(rooms.entering.lock().unwrap().is_empty(), "those that were dropped leave nothing");
        entered
    }

    #[test]
    fn r17_a_room_that_is_full_makes_appends_wait() {
        let rooms = Rooms::new(10, 3 * LARGE_BYTES);
        let large = LARGE_BYTES + 1;
        assert_eq!(
            entered(&rooms, [("a", 6), ("b", 4), ("c", 1), ("d", large), ("e", large), ("f", large)]),
            [true, true, false, true, true, false]
        );
        assert_eq!(entered(&rooms, [("a", 11), ("b", 1)]), [true, false], "what is larger waits for all of it");
    }

    #[test]
    fn r17_small_appends_wait_for_the_room_of_large_ones_only_after_those_of_their_stream() {
        let (rooms, large) = (Rooms::new(100, LARGE_BYTES), LARGE_BYTES + 1);
        assert_eq!(entered(&rooms, [("a", large), ("b", large), ("c", 1)]), [true, false, true]);
        assert_eq!(entered(&rooms, [("a", large), ("b", large), ("b", 1)]), [true, false, false]);
        // And in the other order.
        assert_eq!(entered(&rooms, [("a", 100), ("b", 1), ("b", large)]), [true, false, false]);
        assert_eq!(entered(&rooms, [("b", large), ("c", 100)]), [true, true]);
    }

    #[test]
    fn an_append_of_one_mebibyte_is_not_large() {
        let rooms = Rooms::new(LARGE_BYTES, LARGE_BYTES);
        assert_eq!(entered(&rooms, [("a", 1_048_576), ("b", 1_048_577)]), [true, true]);
    }

    #[tokio::test]
    async fn rooms_that_are_closed_let_none_in() {
        let rooms = Rooms::new(10, 10);
        rooms.close();
        for bytes in [1, LARGE_BYTES + 1] {
            let stream = StreamId::new("test", "a").unwrap();
            assert!(rooms.enter(iter::once(&stream), bytes).room().await.is_none());
        }
    }
}
