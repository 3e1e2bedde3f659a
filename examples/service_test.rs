// A service that is tested as a whole, without servers and without waiting: the store is in memory, and the test moves its
// clock.

use evenfold::{Resources, ServiceBuilder, ServiceStore, prelude::*, reaction};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "loan")]
enum LoanEvent {
    #[event(name = "loan.lent")]
    Lent { book: String },
    #[event(name = "loan.returned")]
    Returned,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Loan;

impl Aggregate for Loan {
    type Command = LoanEvent;
    type Event = LoanEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, wanted: &LoanEvent) -> Result<Vec<LoanEvent>, Self::Error> {
        Ok(vec![wanted.clone()])
    }

    fn apply(&mut self, _: &LoanEvent) {}
}

/// How many books were lent on each day.
struct LentOn;

impl Projection for LentOn {
    const NAME: &'static str = "lent-on";
    type Event = LoanEvent;
    type Document = u32;

    fn keys(&self, event: &Recorded<LoanEvent>) -> Keys {
        match event.data {
            LoanEvent::Lent { .. } => Keys::one(event.recorded_at.date_naive().to_string()),
            LoanEvent::Returned => Keys::none(),
        }
    }

    fn fold(&self, lent: &mut Option<u32>, _: &Recorded<LoanEvent>) -> FoldResult {
        *lent.get_or_insert_default() += 1;
        Ok(())
    }
}

/// Lets a robot, which returns each book at once, have the book.
struct Robot(Repository<Loan>);

impl Robot {
    fn new(shared: &Resources) -> Self {
        Self(shared.repository())
    }
}

#[async_trait]
impl Policy for Robot {
    const NAME: &'static str = "robot";
    type Event = LoanEvent;

    async fn react(&self, event: &Recorded<LoanEvent>) -> Result<(), PolicyError> {
        if matches!(event.data, LoanEvent::Lent { .. }) {
            let context = reaction(event, Self::NAME, "return")?;
            self.0.execute_with(event.stream.id(), LoanEvent::Returned, context).await?;
        }
        Ok(())
    }
}

/// The service, on the store of a deployment or of a test.
fn library(store: impl ServiceStore) -> ServiceBuilder {
    Service::builder("library", store).aggregate::<Loan>().projection(LentOn).policy(Robot::new)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = library(MemoryStore::new()).start().await?;
    service.repository::<Loan>().execute("1", LoanEvent::Lent { book: "Emma".into() }).await?;
    service.shutdown(std::time::Duration::from_secs(10)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenfold::testing::TestClock;

    use super::*;

    #[tokio::test]
    async fn each_day_counts_its_own_loans() -> Result<(), Box<dyn std::error::Error>> {
        let clock = TestClock::at("2026-01-31T23:30:00Z".parse()?);
        let service = library(clock.store()).start().await?;
        let loans = service.repository::<Loan>();

        loans.execute("1", LoanEvent::Lent { book: "Emma".into() }).await?;
        clock.advance(Duration::from_hours(1));
        loans.execute("2", LoanEvent::Lent { book: "Ulysses".into() }).await?;

        // Returns when the policy has reacted to everything and the read model holds what followed.
        service.settled(Duration::from_secs(10)).await?;
        let lent = service.read_model::<LentOn>();
        assert_eq!(lent.get("2026-01-31").await?, Some(1));
        assert_eq!(lent.get("2026-02-01").await?, Some(1));
        assert_eq!(loans.load("1").await?.version.get(), 2, "lent and returned");
        Ok(())
    }
}
