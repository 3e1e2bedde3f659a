// Documents that are found by their values: sorted, in pages whose cursor travels as text, and counted.

use std::time::Duration;

use evenfold::{Field, FieldCursor, Fields, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "book")]
enum BookEvent {
    #[event(name = "book.acquired")]
    Acquired { author: String, cents: i64 },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Book;

impl Aggregate for Book {
    type Command = BookEvent;
    type Event = BookEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, acquired: &BookEvent) -> Result<Vec<BookEvent>, Self::Error> {
        Ok(vec![acquired.clone()])
    }

    fn apply(&mut self, _: &BookEvent) {}
}

/// A document for each book, found by its author and by its price.
struct Catalogue;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    author: String,
    cents: i64,
}

const AUTHOR: Field<Entry, String> = Field::new("author", |entry: &Entry| Some(entry.author.clone()));
const CENTS: Field<Entry, i64> = Field::new("cents", |entry: &Entry| Some(entry.cents));

impl Projection for Catalogue {
    const NAME: &'static str = "catalogue";
    const FIELDS: Fields<Entry> = &[&AUTHOR, &CENTS];
    type Event = BookEvent;
    type Document = Entry;

    fn keys(&self, event: &Recorded<BookEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, entry: &mut Option<Entry>, event: &Recorded<BookEvent>) -> FoldResult {
        let BookEvent::Acquired { author, cents } = &event.data;
        *entry = Some(Entry { author: author.clone(), cents: *cents });
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let service = Service::builder("library", store).aggregate::<Book>().projection(Catalogue).start().await?;
    for (book, author, cents) in [("emma", "austen", 900), ("persuasion", "austen", 1_100), ("dune", "herbert", 1_500)]
    {
        let acquired = BookEvent::Acquired { author: author.into(), cents };
        service.repository::<Book>().execute(book, acquired).await?;
    }
    service.settled(Duration::from_secs(5)).await?;

    let books = service.read_model::<Catalogue>();
    assert_eq!(books.count(AUTHOR.is("austen")).await?, 2);

    // The dearest books first, two on a page. The client keeps the cursor as text.
    let dearest = CENTS.range(..2_000).descending();
    let page = books.find(dearest.clone(), 2).await?;
    let keys: Vec<_> = page.documents.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["dune", "persuasion"]);
    let cursor = page.next.expect("there is another page").to_string();

    // Later: the same range in the same direction, after the cursor.
    let page = books.find(dearest.resume(cursor.parse::<FieldCursor>()?), 2).await?;
    assert_eq!(page.documents, [("emma".to_owned(), Entry { author: "austen".to_owned(), cents: 900 })]);
    assert_eq!(page.next, None);

    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
