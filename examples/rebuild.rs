// A read model is folded again while the old one answers: after a change of its code, and on request.

use std::time::Duration;

use evenfold::{CancellationToken, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "account")]
enum AccountEvent {
    #[event(name = "account.credited")]
    Credited { cents: u64 },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Account;

impl Aggregate for Account {
    type Command = u64;
    type Event = AccountEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, cents: &u64) -> Result<Vec<AccountEvent>, Self::Error> {
        Ok(vec![AccountEvent::Credited { cents: *cents }])
    }

    fn apply(&mut self, _: &AccountEvent) {}
}

/// What each account has received. Version 1 forgot all but the last credit; version 2 is the repaired code.
struct Received<const VERSION: u32>;

impl<const VERSION: u32> Projection for Received<VERSION> {
    const NAME: &'static str = "received";
    const VERSION: u32 = VERSION;
    const READS_SINCE: u32 = 1; // until version 2 serves, version 2 of the program answers from the old documents
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, received: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        let AccountEvent::Credited { cents } = event.data;
        let before = if VERSION == 1 { 0 } else { received.unwrap_or_default() };
        *received = Some(before + cents);
        Ok(())
    }
}

/// The service, as each version of the program starts it.
async fn start<const VERSION: u32>(store: &MemoryStore) -> Result<Service, Box<dyn std::error::Error>> {
    let service = Service::builder("accounts", store.clone()).aggregate::<Account>();
    Ok(service.projection(Received::<VERSION>).start().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (store, soon) = (MemoryStore::new(), Duration::from_secs(10));

    let old = start::<1>(&store).await?;
    for cents in [5, 7] {
        old.repository::<Account>().execute("ada", cents).await?;
    }
    old.settled(soon).await?;
    assert_eq!(old.read_model::<Received<1>>().get("ada").await?, Some(7));
    old.shutdown(soon).await?;

    // A new version is folded from the first event when its program starts, beside the old one, and takes its place.
    let new = start::<2>(&store).await?;
    let received = new.read_model::<Received<2>>();
    while received.get("ada").await? == Some(7) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(received.get("ada").await?, Some(12));

    // The same on request, without a new version: for example after documents were changed by hand.
    let generation = new.rebuild::<Received<2>>(new.log(), CancellationToken::new()).await?;
    assert!(generation.is_some(), "it serves now");
    assert_eq!(received.get("ada").await?, Some(12));
    new.shutdown(soon).await?;
    Ok(())
}
