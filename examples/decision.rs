// A rule that spans aggregates: each booking is one, and no two bookings share a night of a room.

use evenfold::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "booking", tag = "room:{room}")]
enum BookingEvent {
    #[event(name = "booking.made")]
    Made { room: u32, night: u32 },
    #[event(name = "booking.cancelled")]
    Cancelled { room: u32, night: u32 },
}

/// The nights for which a room is taken, by any booking.
struct Nights {
    room: u32,
    taken: Vec<u32>,
}

impl DecisionModel for Nights {
    type Event = BookingEvent;

    fn query(&self) -> Result<EventQuery, InvalidTag> {
        Ok(EventQuery::tagged([Tag::new(format!("room:{}", self.room))?]))
    }

    fn apply(&mut self, event: &Recorded<BookingEvent>) {
        match event.data {
            BookingEvent::Made { night, .. } => self.taken.push(night),
            BookingEvent::Cancelled { night, .. } => self.taken.retain(|taken| *taken != night),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("room {room} is taken in night {night}")]
struct Taken {
    room: u32,
    night: u32,
}

/// Books a room for a night. The same `request` gets the same answer again.
async fn book(
    bookings: &Decisions,
    (id, room, night): (&str, u32, u32),
    request: &str,
) -> Result<Receipt, Box<dyn std::error::Error>> {
    let stream = StreamId::new("booking", id)?;
    let asked = format!("{room} {night}");
    let context = CommandContext::default().idempotent(IdempotencyKey::new(request)?, asked.as_bytes());
    let receipt = bookings.decide_with(Nights { room, taken: vec![] }, context, |nights| {
        if nights.taken.contains(&night) {
            return Err(Taken { room, night });
        }
        Ok(Decision::append(stream.clone(), Expected::NoStream, [BookingEvent::Made { room, night }]))
    });
    Ok(receipt.await?)
}

/// The same events, as an aggregate that can be cancelled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Booking {
    active: Option<(u32, u32)>,
}

struct Cancel;

impl Aggregate for Booking {
    type Command = Cancel;
    type Event = BookingEvent;
    type Error = Taken;

    fn handle(&self, _: &Cancel) -> Result<Vec<BookingEvent>, Taken> {
        Ok(self.active.map(|(room, night)| BookingEvent::Cancelled { room, night }).into_iter().collect())
    }

    fn apply(&mut self, event: &BookingEvent) {
        self.active = match *event {
            BookingEvent::Made { room, night } => Some((room, night)),
            BookingEvent::Cancelled { .. } => None,
        };
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let bookings = Decisions::new(store.clone(), "book");

    assert!(!book(&bookings, ("a", 7, 1), "request 1").await?.repeated);
    assert!(book(&bookings, ("a", 7, 1), "request 1").await?.repeated, "not refused by its own success");
    assert!(book(&bookings, ("b", 7, 1), "request 2").await.is_err());

    // What a repository writes carries the tags of its events, so the night is free again.
    Repository::<Booking>::new(store).execute("a", Cancel).await?;
    book(&bookings, ("b", 7, 1), "request 2").await?;
    Ok(())
}
