//! Sagas by their names, for programs that do not have their code.

use bytes::Bytes;

use super::{Ask, Asked, Overview, Status, engines::PERFORMER, event::ASKED, names};
use crate::{
    codec::{self, Misfit},
    event::{EventData, NewEvent},
    read::{
        field::FieldType,
        read_model::{Act, FieldPlace, FieldScan, FoundDocument, KeyRange, ReadModelError},
    },
    service::ServiceStore,
    stream::{Expected, InvalidStream, StreamId},
    write::{
        append::Append,
        store::{AppendError, Appended},
    },
};

/// How many instances are read at a time.
const PAGE: usize = 500;

/// The saga of a name, as a store keeps it: what operators see of its instances, and ask of them. A program needs none of its code.
#[derive(Debug, Clone)]
pub struct NamedSaga<'a> {
    store: &'a dyn ServiceStore,
    name: String,
}

impl<'a> NamedSaga<'a> {
    /// The sagas that have run on `store`, in the order of their names.
    ///
    /// # Errors
    /// [`ReadModelError`].
    pub async fn all(store: &'a dyn ServiceStore) -> Result<Vec<Self>, ReadModelError> {
        let readers = store.list_readers().await?;
        let performers = readers.into_iter().filter(|reader| reader.kind() == PERFORMER);
        let names =
            performers.filter_map(|reader| reader.reader.name.strip_prefix(names::PERFORMER).map(str::to_owned));
        Ok(names.map(|name| Self { store, name }).collect())
    }

    /// The one whose performer is the reader `performer`; `None` if that is none.
    pub(crate) fn of(store: &'a dyn ServiceStore, performer: &str) -> Option<Self> {
        performer.strip_prefix(names::PERFORMER).map(|name| Self { store, name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stream of the instance `id`.
    ///
    /// # Errors
    /// [`InvalidStream`].
    pub fn stream(&self, id: &str) -> Result<StreamId, InvalidStream> {
        StreamId::new(&format!("{}{}", names::CATEGORY, self.name.replace('-', "_")), id)
    }

    fn read_model(&self) -> String {
        format!("{}{}", names::OVERVIEW, self.name)
    }

    /// What is known of the instance `id`; `None` if it has not begun, or the read model is not built yet.
    ///
    /// # Errors
    /// [`NamedSagaError`].
    pub async fn get(&self, id: &str) -> Result<Option<Overview>, NamedSagaError> {
        let found = self.store.get(&self.read_model(), id).await?;
        found.and_then(|served| served.found).map(|document| read(id, &document)).transpose()
    }

    /// How many instances are `status`.
    ///
    /// # Errors
    /// [`NamedSagaError`].
    pub async fn count(&self, status: Status) -> Result<u64, NamedSagaError> {
        let scan = Overview::STATUS.is(status.as_str()).scan().clone();
        let found = self.store.count(&self.read_model(), &scan).await?;
        Ok(found.and_then(|served| served.found).unwrap_or_default())
    }

    /// Up to `limit` instances, with their ids, in the order of these: those that are `status`, or all.
    ///
    /// # Errors
    /// [`NamedSagaError`].
    pub async fn list(&self, status: Option<Status>, limit: usize) -> Result<Vec<(String, Overview)>, NamedSagaError> {
        let mut all: Vec<(String, Overview)> = Vec::new();
        while all.len() < limit {
            let (after, most) = (all.last().map(|(id, _)| id.as_str()), PAGE.min(limit - all.len()));
            let page = match status {
                Some(status) => self.page_of(status, after, most).await?,
                None => self.page(after, most).await?,
            };
            let is_last = page.len() < most;
            for (id, document) in page {
                let overview = read(&id, &document)?;
                all.push((id, overview));
            }
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Bytes)>, NamedSagaError> {
        let range = after.map_or_else(KeyRange::default, |after| KeyRange::default().after(after));
        let found = self.store.scan(&self.read_model(), range, limit).await?;
        Ok(found.map(|served| served.found).unwrap_or_default())
    }

    async fn page_of(
        &self,
        status: Status,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, NamedSagaError> {
        let mut scan: FieldScan = Overview::STATUS.is(status.as_str()).scan().clone();
        if let Some(after) = after {
            scan.after = FieldPlace { value: status.as_str().to_owned().into_value(), key: after.to_owned() };
        }
        let found = self.store.find(&self.read_model(), &scan, limit).await?;
        let found: Vec<FoundDocument> = found.and_then(|served| served.found).unwrap_or_default();
        Ok(found.into_iter().map(|found| (found.place.key, found.document)).collect())
    }

    /// Asks the instance `id` for something, in the name of the operator of whom `act` tells. Its stream tells that, and it does so when
    /// the saga runs: at once where it runs already. If it does not, its stream tells why (`saga.declined`).
    ///
    /// # Errors
    /// [`NamedSagaError::Append`] with a conflict if the instance has not begun.
    pub async fn ask(&self, id: &str, ask: Ask, act: &Act) -> Result<Appended, NamedSagaError> {
        let payload = serde_json::to_vec(&Asked::new(ask, act)).unwrap_or_else(|_| unreachable!("it holds texts only"));
        let data = EventData { name: ASKED.name.into(), schema_version: ASKED.version, payload: payload.into() };
        let append = Append::new(self.stream(id)?, Expected::StreamExists, vec![NewEvent::new(data)]);
        Ok(self.store.append(append).await?)
    }
}

fn read(id: &str, document: &[u8]) -> Result<Overview, NamedSagaError> {
    codec::decode(document).map_err(|misfit| NamedSagaError::Overview { id: id.to_owned(), misfit })
}

/// Why the instances of a saga cannot be seen or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedSagaError {
    /// The id names no stream.
    #[error(transparent)]
    Id(#[from] InvalidStream),
    /// The read model of the instances cannot be read.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
    /// What is known of an instance was written by another version of Evenfold.
    #[error("what is known of the instance {id:?} does not fit")]
    Overview {
        /// The instance.
        id: String,
        /// How.
        #[source]
        misfit: Misfit,
    },
    /// What is asked cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl NamedSagaError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ReadModel(error) => error.is_transient(),
            Self::Append(error) => error.is_transient(),
            Self::Id(_) | Self::Overview { .. } => false,
        }
    }
}
