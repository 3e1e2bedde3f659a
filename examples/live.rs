// A read model that is folded when it is read, from events of two kinds: now, as of a moment, and a test that it finds all of them.

use std::time::Duration;

use evenfold::{KeyEvents, LiveProjection, Position, prelude::*, read::refold::Moment, testing::live_differences};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "member")]
enum MemberEvent {
    #[event(name = "member.joined")]
    Joined,
}

/// The tag finds the loans of a member, which are streams of their own.
#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "loan", tag = "member:{member}")]
enum LoanEvent {
    #[event(name = "loan.started")]
    Started { book: String, member: String },
}

#[derive(Debug, Clone, EventSet)]
enum TimelineEvent {
    Member(MemberEvent),
    Loan(LoanEvent),
}

macro_rules! aggregate {
    ($name:ident, $event:ident) => {
        #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
        struct $name;

        impl Aggregate for $name {
            type Command = $event;
            type Event = $event;
            type Error = std::convert::Infallible;

            fn handle(&self, event: &$event) -> Result<Vec<$event>, Self::Error> {
                Ok(vec![event.clone()])
            }

            fn apply(&mut self, _: &$event) {}
        }
    };
}

aggregate!(Member, MemberEvent);
aggregate!(Loan, LoanEvent);

/// What each member did.
struct Timeline;

impl Projection for Timeline {
    const NAME: &'static str = "timeline";
    type Event = TimelineEvent;
    type Document = Vec<String>;

    fn keys(&self, event: &Recorded<TimelineEvent>) -> Keys {
        match &event.data {
            TimelineEvent::Member(_) => Keys::one(event.stream.id()),
            TimelineEvent::Loan(LoanEvent::Started { member, .. }) => Keys::one(member),
        }
    }

    fn fold(&self, steps: &mut Option<Vec<String>>, event: &Recorded<TimelineEvent>) -> FoldResult {
        steps.get_or_insert_default().push(match &event.data {
            TimelineEvent::Member(MemberEvent::Joined) => "joined".to_owned(),
            TimelineEvent::Loan(LoanEvent::Started { book, .. }) => format!("took {book}"),
        });
        Ok(())
    }
}

impl LiveProjection for Timeline {
    fn events_of(&self, member: &str) -> KeyEvents {
        KeyEvents::stream::<MemberEvent>(member).or(KeyEvents::tagged(format!("member:{member}")))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let service = Service::builder("library", store).aggregate::<Member>().aggregate::<Loan>().live(Timeline);
    let service = service.start().await?;
    service.repository::<Member>().execute("ada", MemberEvent::Joined).await?;
    let started = LoanEvent::Started { book: "emma".to_owned(), member: "ada".to_owned() };
    service.repository::<Loan>().execute("1", started).await?;

    // It holds all that was written before: nothing is waited for.
    let timeline = service.live::<Timeline>();
    assert_eq!(timeline.get("ada").await?, Some(vec!["joined".to_owned(), "took emma".to_owned()]));
    let before = timeline.get_as_of("ada", Moment::Position(Position::new(1))).await?;
    assert_eq!(before, Some(vec!["joined".to_owned()]));

    // In a test: `events_of` finds every event for which `keys` names the key.
    assert!(live_differences(&timeline, &service.store()).await?.is_empty());

    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
