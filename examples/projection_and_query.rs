// A read model with one document for each open task, read by key, in pages, and after one's own write.

use std::time::Duration;

use evenfold::{KeyRange, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "list")]
enum ListEvent {
    #[event(name = "task.added")]
    Added { task: u32, title: String },
    #[event(name = "task.done")]
    Done { task: u32 },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct List {
    open: Vec<u32>,
}

impl Aggregate for List {
    type Command = ListEvent;
    type Event = ListEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, wanted: &ListEvent) -> Result<Vec<ListEvent>, Self::Error> {
        let (ListEvent::Added { task, .. } | ListEvent::Done { task }) = wanted;
        let changes = self.open.contains(task) == matches!(wanted, ListEvent::Done { .. });
        Ok(changes.then(|| wanted.clone()).into_iter().collect())
    }

    fn apply(&mut self, event: &ListEvent) {
        match event {
            ListEvent::Added { task, .. } => self.open.push(*task),
            ListEvent::Done { task } => self.open.retain(|open| open != task),
        }
    }
}

/// The title of each open task, under `<list>/<task>`.
struct OpenTasks;

impl Projection for OpenTasks {
    const NAME: &'static str = "open-tasks";
    type Event = ListEvent;
    type Document = String;

    fn keys(&self, event: &Recorded<ListEvent>) -> Keys {
        let (ListEvent::Added { task, .. } | ListEvent::Done { task }) = &event.data;
        Keys::one(format!("{}/{task:04}", event.stream.id()))
    }

    fn fold(&self, title: &mut Option<String>, event: &Recorded<ListEvent>) -> FoldResult {
        *title = match &event.data {
            ListEvent::Added { title, .. } => Some(title.clone()),
            ListEvent::Done { .. } => None, // no document any more
        };
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service =
        Service::builder("tasks", MemoryStore::new()).aggregate::<List>().projection(OpenTasks).start().await?;
    let (lists, open) = (service.repository::<List>(), service.read_model::<OpenTasks>());

    for (task, title) in [(1, "buy bread"), (2, "call Ada"), (3, "sleep")] {
        lists.execute("home", ListEvent::Added { task, title: title.into() }).await?;
    }
    let receipt = lists.execute("home", ListEvent::Done { task: 1 }).await?;

    // A write returns a token; the read waits until the read model holds this write.
    open.wait_for(receipt.token, Duration::from_secs(5)).await?;
    assert_eq!(open.get("home/0001").await?, None);
    assert_eq!(open.get("home/0002").await?.as_deref(), Some("call Ada"));

    // Pages in the order of the keys.
    let first = open.scan(KeyRange::prefix("home/"), 1).await?;
    assert_eq!(first.documents, [("home/0002".to_owned(), "call Ada".to_owned())]);
    let cursor = first.next.expect("there is another page");
    let second = open.scan(KeyRange::prefix("home/").resume(cursor), 1).await?;
    assert_eq!(second.documents, [("home/0003".to_owned(), "sleep".to_owned())]);
    assert_eq!(second.next, None);

    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
