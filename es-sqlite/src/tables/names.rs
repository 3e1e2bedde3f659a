//! The names of the tables of a generation, and the public names of those that serve.

use es_core::Generation;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

/// What the names of a generation begin with.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    public: String,
}

impl Names {
    /// Its number comes first, so that no name of another generation begins with the same.
    pub(crate) fn new(generation: &Generation) -> Self {
        let projection = generation.reader.name.replace('-', "_");
        Self { prefix: format!("g{}_{projection}_", generation.reader.id), public: format!("{projection}_") }
    }

    pub(crate) fn with_prefix(prefix: String) -> Self {
        Self { prefix, public: String::new() }
    }

    /// Those of `generation`, if its tables are there.
    pub(crate) async fn of(connection: &mut SqliteConnection, generation: i64) -> Result<Option<Self>, sqlx::Error> {
        let query = sqlx::query(include_str!("../sql/table_generation.sql")).bind(generation);
        let row = query.fetch_optional(connection).await?;
        row.map(|row| Ok(Self { prefix: row.try_get("prefix")?, public: row.try_get("public_prefix")? })).transpose()
    }

    /// Records that the tables of `generation` are there.
    pub(crate) async fn add(&self, connection: &mut SqliteConnection, generation: i64) -> Result<(), sqlx::Error> {
        let add = sqlx::query(include_str!("../sql/add_table_generation.sql"));
        add.bind(generation).bind(&self.prefix).bind(&self.public).execute(connection).await?;
        Ok(())
    }

    /// `sql` with the names of this generation in the place of `{name}`. Braces around anything but a name stay.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        let (mut written, mut rest) = (String::with_capacity(sql.len()), sql);
        while let Some((before, after)) = rest.split_once('{') {
            written.push_str(before);
            match after.split_once('}') {
                Some((name, after)) if is_name(name) => {
                    written.push_str(&quoted(&self.prefix, name));
                    rest = after;
                }
                _ => {
                    written.push('{');
                    rest = after;
                }
            }
        }
        written.push_str(rest);
        written
    }

    /// The tables, without their prefix, those that were made last first.
    async fn tables(&self, connection: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
        let query = sqlx::query_scalar(include_str!("../sql/tables_with_prefix.sql")).bind(&self.prefix);
        query.fetch_all(connection).await
    }

    /// A public name that something else has, or that the tables of another projection will have.
    pub(crate) async fn taken(&self, connection: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
        for table in self.tables(connection).await? {
            let name = format!("{}{table}", self.public);
            let query = sqlx::query(include_str!("../sql/taken_name.sql")).bind(&name).bind(&self.public);
            if query.fetch_optional(&mut *connection).await?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

fn quoted(prefix: &str, name: &str) -> String {
    format!("\"{}\"", format!("{prefix}{name}").replace('"', "\"\""))
}

async fn run(connection: &mut SqliteConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Gives the public names to the tables of `new`, which begins to serve in the place of `old`: they are views. The caller holds the
/// write lock.
pub(crate) async fn swap(connection: &mut SqliteConnection, old: Option<i64>, new: i64) -> Result<(), sqlx::Error> {
    if let Some(old) = old
        && let Some(names) = Names::of(connection, old).await?
    {
        for table in names.tables(connection).await? {
            run(connection, format!("DROP VIEW IF EXISTS {}", quoted(&names.public, &table))).await?;
        }
    }
    if let Some(names) = Names::of(connection, new).await? {
        for table in names.tables(connection).await? {
            let (public, own) = (quoted(&names.public, &table), quoted(&names.prefix, &table));
            run(connection, format!("CREATE VIEW {public} AS SELECT * FROM {own}")).await?;
        }
    }
    Ok(())
}

/// Drops the tables of a retired generation. Readings that have begun still see them. The caller holds the write lock.
pub(crate) async fn drop_tables(connection: &mut SqliteConnection, generation: i64) -> Result<(), sqlx::Error> {
    let Some(names) = Names::of(connection, generation).await? else { return Ok(()) };
    // A table refers to those that were made before it.
    for table in names.tables(connection).await? {
        run(connection, format!("DROP TABLE {}", quoted(&names.prefix, &table))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn names_in_braces_get_the_prefix_of_the_generation() {
        let names = Names::with_prefix("g7_orders_".to_owned());
        for (sql, expected) in [
            ("SELECT * FROM {rows} JOIN {others}", r#"SELECT * FROM "g7_orders_rows" JOIN "g7_orders_others""#),
            (r#"SELECT '{"a":1}', '{}', '{' FROM {rows}"#, r#"SELECT '{"a":1}', '{}', '{' FROM "g7_orders_rows""#),
            ("SELECT 1", "SELECT 1"),
        ] {
            assert_eq!(names.sql(sql), expected);
        }
    }
}
