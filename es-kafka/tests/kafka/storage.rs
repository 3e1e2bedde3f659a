//! Object storage that a test can take away, and the records as they are in Kafka.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use es_core::Position;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::KafkaError,
    message::{BorrowedMessage, Headers, OwnedMessage},
};

use crate::setup::{House, PATIENCE, consumer};

/// How object storage answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answers {
    Well,
    Not,
    Denied,
    /// Well, and a get takes a third of a second.
    Slowly,
}

const SLOWLY: u8 = Answers::Slowly as u8;

/// Objects in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Storage {
    objects: Arc<InMemory>,
    answers: Arc<AtomicU8>,
    puts: Arc<Mutex<Vec<String>>>,
}

impl Storage {
    pub(crate) fn answers(&self, answers: Answers) {
        self.answers.store(answers as u8, Ordering::SeqCst);
    }

    /// What was put, in that order, also repeatedly.
    pub(crate) fn puts(&self) -> Vec<String> {
        self.puts.lock().unwrap().clone()
    }

    pub(crate) async fn get(&self, name: &str) -> Option<Bytes> {
        let found = self.objects.get_opts(&Path::parse(name).unwrap(), GetOptions::default()).await.ok()?;
        Some(found.bytes().await.unwrap())
    }

    /// Puts another object in the place of one.
    pub(crate) async fn replace(&self, name: &str, bytes: impl Into<Bytes>) {
        let path = Path::parse(name).unwrap();
        self.objects.put_opts(&path, bytes.into().into(), PutOptions::default()).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        use futures_util::{StreamExt as _, stream};
        let path = Path::parse(name).unwrap();
        self.objects.delete_stream(stream::iter([Ok(path)]).boxed()).next().await.unwrap().unwrap();
    }

    fn check(&self, path: &Path) -> Result<()> {
        match self.answers.load(Ordering::SeqCst) {
            0 | SLOWLY => Ok(()),
            1 => Err(Error::Generic { store: "test", source: "it is away".into() }),
            _ => Err(Error::PermissionDenied { path: path.to_string(), source: "it is denied".into() }),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test")
    }
}

#[async_trait]
impl ObjectStore for Storage {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check(path)?;
        self.puts.lock().unwrap().push(path.to_string());
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(path)?;
        if self.answers.load(Ordering::SeqCst) == SLOWLY {
            tokio::time::sleep(Duration::from_millis(330)).await;
        }
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// What a record is to any client: partition, key, value and headers.
pub(crate) type Raw = (i32, Vec<u8>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

pub(crate) fn raw(record: &OwnedMessage) -> Raw {
    let headers = record.headers().into_iter().flat_map(Headers::iter);
    let headers = headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
    let value = record.payload().map(<[u8]>::to_vec);
    (record.partition(), record.key().unwrap().to_vec(), value, headers.collect())
}

impl House {
    /// All committed records of a topic of events, once the relay has published up to `until`.
    pub(crate) async fn records(&self, topic: &str, until: Position) -> Vec<OwnedMessage> {
        let (topic, progress) = (topic.to_owned(), self.progress(until).await);
        let read = tokio::task::spawn_blocking(move || {
            let consumer = consumer();
            let mut records = Vec::new();
            for partition in 0..progress.partitions[&topic] {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
                consumer.assign(&list).unwrap();
                let deadline = Instant::now() + PATIENCE;
                loop {
                    assert!(Instant::now() < deadline, "{topic}/{partition} does not end");
                    match consumer.poll(Duration::from_millis(100)) {
                        Some(Ok(record)) => records.push(BorrowedMessage::detach(&record)),
                        Some(Err(KafkaError::PartitionEOF(_))) => break,
                        _ => {}
                    }
                }
            }
            records
        });
        read.await.unwrap()
    }
}
