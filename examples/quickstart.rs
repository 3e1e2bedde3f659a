// An aggregate, a projection and a service: what the README shows.

use std::time::Duration;

use evenfold::prelude::*;
use serde::{Deserialize, Serialize};

/// What happens to a seat. Names are what is stored; they never change.
#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "seat")]
enum SeatEvent {
    #[event(name = "seat.taken")]
    Taken { by: String },
    #[event(name = "seat.freed")]
    Freed { by: String },
}

enum SeatCommand {
    Take { by: String },
    Free,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the seat is taken by {by}")]
struct Occupied {
    by: String,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seat {
    taken_by: Option<String>,
}

impl Aggregate for Seat {
    type Command = SeatCommand;
    type Event = SeatEvent;
    type Error = Occupied;

    fn handle(&self, command: &SeatCommand) -> Result<Vec<SeatEvent>, Occupied> {
        Ok(match (command, &self.taken_by) {
            (SeatCommand::Take { by }, None) => vec![SeatEvent::Taken { by: by.clone() }],
            (SeatCommand::Take { .. }, Some(by)) => return Err(Occupied { by: by.clone() }),
            (SeatCommand::Free, Some(by)) => vec![SeatEvent::Freed { by: by.clone() }],
            (SeatCommand::Free, None) => vec![],
        })
    }

    fn apply(&mut self, event: &SeatEvent) {
        self.taken_by = match event {
            SeatEvent::Taken { by } => Some(by.clone()),
            SeatEvent::Freed { .. } => None,
        };
    }
}

/// How many seats each guest has: a document for each guest.
struct Guests;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Guest {
    seats: u32,
}

impl Projection for Guests {
    const NAME: &'static str = "guests";
    type Event = SeatEvent;
    type Document = Guest;

    fn keys(&self, event: &Recorded<SeatEvent>) -> Keys {
        let (SeatEvent::Taken { by } | SeatEvent::Freed { by }) = &event.data;
        Keys::one(by)
    }

    fn fold(&self, guest: &mut Option<Guest>, event: &Recorded<SeatEvent>) -> FoldResult {
        let guest = guest.get_or_insert_default();
        match event.data {
            SeatEvent::Taken { .. } => guest.seats += 1,
            SeatEvent::Freed { .. } => guest.seats -= 1,
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new(); // or SqliteStore::open("seats.db").await?, or PostgresStore::connect(url).await?
    let service = Service::builder("seats", store).aggregate::<Seat>().projection(Guests).start().await?;

    let seats = service.repository::<Seat>();
    let receipt = seats.execute("12A", SeatCommand::Take { by: "Ada".into() }).await?;
    assert!(seats.execute("12A", SeatCommand::Take { by: "Bob".into() }).await.is_err());

    let guests = service.read_model::<Guests>();
    guests.wait_for(receipt.token, Duration::from_secs(5)).await?; // a read that sees this write
    assert_eq!(guests.get("Ada").await?, Some(Guest { seats: 1 }));

    seats.execute("12A", SeatCommand::Free).await?;
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use evenfold::testing::given;

    use super::*;

    #[test]
    fn a_taken_seat_is_refused() {
        let taken = SeatEvent::Taken { by: "Ada".into() };
        given::<Seat>([]).when(&SeatCommand::Take { by: "Ada".into() }).then([taken.clone()]);
        given::<Seat>([taken])
            .when(&SeatCommand::Take { by: "Bob".into() })
            .then_refused(&Occupied { by: "Ada".into() });
    }
}
