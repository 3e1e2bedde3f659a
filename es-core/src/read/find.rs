//! Documents by the values of their fields.

mod cursor;

use std::{
    fmt,
    marker::PhantomData,
    ops::{Bound, RangeBounds},
};

pub use self::cursor::FieldCursor;
use crate::read::{
    field::{Field, FieldType},
    projection::Projection,
    query::{Page, QueryError, ReadModel, open},
    read_model::{FieldPlace, FieldScan, FieldValue, FoundDocument, Served},
};

/// Documents of type `D` whose values of a field lie in a range, in the order of the values; those of one value in the order of their
/// keys. Made by [`Field::is`] and [`Field::range`].
pub struct FieldRange<D> {
    scan: FieldScan,
    /// The generation and the field of the page before.
    resumed: Option<(i64, String)>,
    documents: PhantomData<fn(&D)>,
}

impl<D> Clone for FieldRange<D> {
    fn clone(&self) -> Self {
        Self { scan: self.scan.clone(), resumed: self.resumed.clone(), documents: PhantomData }
    }
}

impl<D> fmt::Debug for FieldRange<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldRange").field("scan", &self.scan).finish_non_exhaustive()
    }
}

impl<D, T: FieldType> Field<D, T> {
    /// The documents with this value.
    ///
    /// ```
    /// # use es_core::Field;
    /// # struct Order { customer: String }
    /// # const CUSTOMER: Field<Order, String> = Field::new("customer", |order| Some(order.customer.clone()));
    /// let of_ada = CUSTOMER.is("ada");
    /// ```
    pub fn is(self, value: impl Into<T>) -> FieldRange<D> {
        let value = value.into().into_value();
        self.between(Bound::Included(&value), Bound::Included(&value))
    }

    /// The documents with a value in `range`; `..` means any value.
    ///
    /// ```
    /// # use es_core::Field;
    /// # struct Order { total: i64, customer: String }
    /// # const TOTAL: Field<Order, i64> = Field::new("total", |order| Some(order.total));
    /// # const CUSTOMER: Field<Order, String> = Field::new("customer", |order| Some(order.customer.clone()));
    /// let (large, small) = (TOTAL.range(100_000..), TOTAL.range(..=500));
    /// let a_to_c = CUSTOMER.range("a".to_owned().."d".to_owned());
    /// ```
    pub fn range(self, range: impl RangeBounds<T>) -> FieldRange<D>
    where
        T: Clone,
    {
        let value = |bound: Bound<&T>| bound.map(|value| value.clone().into_value());
        let (from, to) = (value(range.start_bound()), value(range.end_bound()));
        self.between(from.as_ref(), to.as_ref())
    }

    fn between(self, from: Bound<&FieldValue>, to: Bound<&FieldValue>) -> FieldRange<D> {
        // The empty key stands before all keys of a value, so a place with it is the edge between two values.
        let place = |value: FieldValue| FieldPlace { value, key: String::new() };
        let after = match from {
            Bound::Included(value) => value.clone().edge(false),
            Bound::Excluded(value) => value.clone().edge(true),
            Bound::Unbounded => FieldValue { number: i64::MIN, text: String::new() },
        };
        let before = match to {
            Bound::Included(value) => value.clone().edge(true),
            Bound::Excluded(value) => value.clone().edge(false),
            Bound::Unbounded => FieldValue { number: i64::MAX, text: String::new() }.edge(true),
        };
        let (after, before) = (place(after), place(before));
        let scan = FieldScan { field: self.name(), kind: T::KIND, after, before, is_descending: false };
        FieldRange { scan, resumed: None, documents: PhantomData }
    }
}

impl<D> FieldRange<D> {
    /// The same documents, the last of them first: those of one value in the opposite order of their keys too.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.scan.is_descending = true;
        self
    }

    /// The part of it after the page that returned `cursor`, in the same generation.
    #[must_use]
    pub fn resume(mut self, cursor: FieldCursor) -> Self {
        let FieldCursor { generation, field, place } = cursor;
        let FieldScan { after, before, is_descending, .. } = &mut self.scan;
        if *is_descending {
            *before = place.min(std::mem::take(before));
        } else {
            *after = place.max(std::mem::take(after));
        }
        Self { resumed: Some((generation, field)), ..self }
    }

    /// What a store is asked for.
    pub fn scan(&self) -> &FieldScan {
        &self.scan
    }

    /// `served`, if the cursor that it was resumed with belongs to it.
    fn admit<P: Projection, T>(&self, served: Served<T>) -> Result<Served<T>, QueryError> {
        match &self.resumed {
            Some((_, field)) if *field != self.scan.field => {
                Err(QueryError::OtherCursor { projection: P::NAME, field: self.scan.field })
            }
            Some((generation, _)) if *generation != served.generation.reader.id => {
                Err(QueryError::Replaced { projection: P::NAME })
            }
            _ => Ok(served),
        }
    }
}

impl<P: Projection> ReadModel<P> {
    /// Up to `limit` documents in `range` in its order, and the cursor of the next page for [`FieldRange::resume`].
    ///
    /// All documents of a page are from one moment, and all pages from one generation. Commits between two pages shift nothing: a
    /// document whose value stays the same is on exactly one page.
    ///
    /// # Errors
    /// [`QueryError::NoField`] when the generation that serves was folded without the field, after
    /// [`patience`](Self::patience). [`QueryError::OtherCursor`] when the cursor is one of another field. Others as for
    /// [`scan`](Self::scan).
    pub async fn find(
        &self,
        range: FieldRange<P::Document>,
        limit: usize,
    ) -> Result<Page<P::Document, FieldCursor>, QueryError> {
        let mut wait = self.wait();
        loop {
            // One document more than `limit` shows whether there is a next page.
            let served = self.store().find(P::NAME, &range.scan, limit.saturating_add(1)).await?;
            match self.found(served, range.scan.field).await {
                Ok(served) => {
                    return range.admit::<P, _>(served).and_then(|served| page::<P>(served, limit, range.scan.field));
                }
                Err(error) => self.wait_on(&mut wait, error).await?,
            }
        }
    }

    /// How many documents are in `range`, from where it is [resumed](FieldRange::resume) on if it is. It reads all of these entries
    /// of the index.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn count(&self, range: FieldRange<P::Document>) -> Result<u64, QueryError> {
        let mut wait = self.wait();
        loop {
            let served = self.store().count(P::NAME, &range.scan).await?;
            match self.found(served, range.scan.field).await {
                Ok(served) => return range.admit::<P, _>(served).map(|served| served.found),
                Err(error) => self.wait_on(&mut wait, error).await?,
            }
        }
    }
}

fn page<P: Projection>(
    served: Served<Vec<FoundDocument>>,
    limit: usize,
    field: &'static str,
) -> Result<Page<P::Document, FieldCursor>, QueryError> {
    let Served { generation, mut found } = served;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| FieldCursor {
        generation: generation.reader.id,
        field: field.to_owned(),
        place: last.place.clone(),
    });
    let documents = found.into_iter().map(|FoundDocument { place, document }| {
        open::<P>(&place.key, &document).map(|document| (place.key, document))
    });
    Ok(Page { documents: documents.collect::<Result<_, _>>()?, next })
}
