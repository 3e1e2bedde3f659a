//! The small domain for tests of decisions: each booking is an aggregate, and bookings share the nights of rooms.

use std::collections::BTreeSet;

use es_core::{Aggregate, DecisionModel, EventQuery, InvalidTag, Recorded, Tag};
use serde::{Deserialize, Serialize};

/// The events of a booking. Each one has a tag for its room, so that decisions on the room find it.
#[derive(Debug, Clone, PartialEq, Eq, es_core::Event)]
#[event(category = "booking", tag = "room:{room}")]
pub enum BookingEvent {
    /// A room is taken for a night.
    #[event(name = "booking.made", tag = "guest:{guest}")]
    Made {
        /// Which room.
        room: u32,
        /// Which night.
        night: u32,
        /// By whom.
        guest: String,
    },
    /// The night is free again.
    #[event(name = "booking.cancelled", tag = "guest:{guest}")]
    Cancelled {
        /// Which room.
        room: u32,
        /// Which night.
        night: u32,
        /// Who had booked it.
        guest: String,
    },
}

/// The commands of a booking.
#[derive(Debug, Clone)]
pub enum BookingCommand {
    /// Take a room for a night.
    Make {
        /// Which room.
        room: u32,
        /// Which night.
        night: u32,
        /// For whom.
        guest: String,
    },
    /// Cancel the booking and free the night.
    Cancel,
}

/// Why a booking refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BookingRefusal {
    #[error("the booking is already made")]
    Made,
    #[error("there is no such booking")]
    Unknown,
}

/// A booking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Room, night and guest, while it stands.
    pub made: Option<(u32, u32, String)>,
}

impl Aggregate for Booking {
    type Command = BookingCommand;
    type Event = BookingEvent;
    type Error = BookingRefusal;

    fn handle(&self, command: &BookingCommand) -> Result<Vec<BookingEvent>, BookingRefusal> {
        match (command.clone(), self.made.clone()) {
            (BookingCommand::Make { room, night, guest }, None) => Ok(vec![BookingEvent::Made { room, night, guest }]),
            (BookingCommand::Make { .. }, Some(_)) => Err(BookingRefusal::Made),
            (BookingCommand::Cancel, Some((room, night, guest))) => {
                Ok(vec![BookingEvent::Cancelled { room, night, guest }])
            }
            (BookingCommand::Cancel, None) => Err(BookingRefusal::Unknown),
        }
    }

    fn apply(&mut self, event: &BookingEvent) {
        self.made = match event.clone() {
            BookingEvent::Made { room, night, guest } => Some((room, night, guest)),
            BookingEvent::Cancelled { .. } => None,
        };
    }
}

/// The taken nights of all bookings that carry a tag, of a room or of a guest.
#[derive(Debug, Clone)]
pub struct Nights {
    about: String,
    /// The taken nights.
    pub taken: BTreeSet<u32>,
}

impl Nights {
    /// The nights of the bookings that carry the tag `about`.
    pub fn of(about: &str) -> Self {
        Self { about: about.to_owned(), taken: BTreeSet::new() }
    }
}

impl DecisionModel for Nights {
    type Event = BookingEvent;

    fn query(&self) -> Result<EventQuery, InvalidTag> {
        Ok(EventQuery::tagged([Tag::new(&self.about)?]))
    }

    fn apply(&mut self, event: &Recorded<BookingEvent>) {
        match event.data {
            BookingEvent::Made { night, .. } => self.taken.insert(night),
            BookingEvent::Cancelled { night, .. } => self.taken.remove(&night),
        };
    }
}
