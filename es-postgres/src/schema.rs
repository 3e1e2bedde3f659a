//! Which schema is ours.

/// The schema in which a store was opened. Its name may come to belong to another one.
#[derive(Clone)]
pub(crate) struct SchemaId {
    pub(crate) name: String,
    pub(crate) oid: i64,
}

impl SchemaId {
    /// The search path of a session with this mark. `pg_temp` stands after the schema: otherwise a temporary table could stand
    /// before one of ours. No schema bears the name of a mark, so that part leads nowhere and only tells the session.
    pub(crate) fn path(&self, mark: &str) -> String {
        format!("{},pg_temp,{mark}", self.name)
    }
}
