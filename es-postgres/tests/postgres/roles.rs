//! What the role of an application may do, and what not.

use std::{sync::Arc, time::Duration};

use es_core::{
    Append, AppendError, EventStore, Expected, LogSource, Position, Projector, ReadModel, Repository,
    backend::SnapshotStore,
    testing::account::{Account, AccountCommand, Histories},
};
use es_postgres::{ConnectError, Imported, OutcomeUnknown, PostgresOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::server::{Schema, Session, append, appended, event, exact, log, soon, stream};

/// A role of one test, with the rights of an application in one schema. It is not removed.
pub(super) struct Role(String);

impl Role {
    pub(super) async fn new(schema: &Schema) -> Self {
        let role = Self(format!("app_{}", schema.0));
        let mut owner = schema.session().await;
        owner.run(&format!("CREATE ROLE {0} LOGIN PASSWORD '{0}'; SELECT grant_application('{0}')", role.0)).await;
        role
    }

    pub(super) fn options(&self, schema: &Schema) -> PostgresOptions {
        schema.options_with(&format!("&user={0}&password={0}", self.0))
    }

    /// A session of its own that sees the schema.
    async fn session(&self, schema: &Schema) -> Session {
        let mut session =
            Session(PgConnection::connect(&schema.url_with(&format!("&user={0}&password={0}", self.0))).await.unwrap());
        session.run(&format!("SET search_path = {}", schema.0)).await;
        session
    }
}

/// What the server says to `sql`.
async fn refusal(session: &mut Session, sql: &str) -> String {
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session.0).await;
    let refusal = outcome.expect_err(sql);
    refusal.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned()
}

/// How long appends are tried again that are bound to fail: enough for two attempts.
const IMPATIENT: Duration = Duration::from_secs(2);

const FORBIDDEN: &str = "42501";

/// Everything that the ports offer, under a role that is granted what an application needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_role_can_do_all_that_the_ports_do() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    let store = role.options(&schema).connect().await.unwrap();

    let accounts = Repository::<Account>::new(store.clone()).snapshot_every(2);
    for _ in 0..5 {
        accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
    }
    soon(async {
        let stream = "account-a".parse().unwrap();
        while store.load_snapshot(&stream).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    store.append(append("any", Expected::Any, 3)).await.unwrap();
    let history: Vec<_> = store.read_log(Position::ZERO, 100).await.unwrap().into_iter().map(Imported::from).collect();
    assert_eq!(store.import("copy").events(history).await.unwrap().events, 8);
    let mut own = role.session(&schema).await;
    own.run("BEGIN").await;
    store.append_in(&mut own.0, append("own", exact(0), 1)).await.unwrap();
    own.run("COMMIT").await;
    assert_eq!(log(&store).await.len(), 17);

    let source = LogSource::new(store.clone());
    let read_models = Arc::new(store.clone());
    let shutdown = CancellationToken::new();
    let projector = Projector::new(Histories, source.clone(), read_models.clone());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { projector.run(shutdown).await }
    });
    let model = ReadModel::<Histories>::new(read_models.clone());
    model.wait_for(es_core::ReadToken(Position::new(17)), Duration::from_mins(2)).await.unwrap();
    let rebuilt = Projector::new(Histories, source, read_models);
    soon(rebuilt.rebuild(CancellationToken::new())).await.unwrap();
    assert_eq!(model.get("a").await.unwrap(), Some((1..=10).collect()));
    shutdown.cancel();
    soon(running).await.unwrap().unwrap();
    assert_eq!(own.number("SELECT count(*) FROM event_log").await, 17);
    assert_eq!(own.number("SELECT count(*) FROM read_models").await, 1);
    store.close().await.unwrap();
}

/// It can lose: with `DELETE` among the rights on tables without a word of their own, the trigger had to
/// refuse what the role should not even have tried.
#[tokio::test(flavor = "multi_thread")]
async fn r3_an_application_role_cannot_rewrite_history_nor_what_guards_it() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", Expected::Any, 1)).await.unwrap();
    let role = Role::new(&schema).await;
    let mut session = role.session(&schema).await;
    for forbidden in [
        "UPDATE events SET version = 2",
        "DELETE FROM events",
        "TRUNCATE events",
        "SELECT FROM events FOR UPDATE",
        "UPDATE event_log SET version = 2",
        "DELETE FROM event_log",
        "UPDATE commands SET version = 2",
        "DELETE FROM commands",
        "DELETE FROM imports",
        "DELETE FROM _sqlx_migrations",
        "DROP TABLE events",
        "ALTER TABLE events DISABLE TRIGGER events_append_only",
        "ALTER TABLE events ADD COLUMN more int",
        "DROP TRIGGER events_append_only ON events",
        "CREATE TRIGGER more BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse_rewrite()",
        "CREATE OR REPLACE FUNCTION take_append_lock() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE FUNCTION more() RETURNS void LANGUAGE sql AS ''",
        "CREATE TABLE more ()",
        "ALTER FUNCTION take_append_lock() OWNER TO CURRENT_USER",
        "SELECT grant_application(current_user)",
        "SET session_replication_role = replica",
    ] {
        assert_eq!(refusal(&mut session, forbidden).await, FORBIDDEN, "{forbidden}");
    }
    assert_eq!(log(&store).await, [(1, "a".into())]);
}

/// The rows of a large append get their places by a function with the owner's rights, which touches no others. (Seen to
/// fail with the rights of the caller: the append was refused.)
#[tokio::test(flavor = "multi_thread")]
async fn r3_an_application_role_makes_large_appends_and_moves_no_event() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    let store = role.options(&schema).patience(IMPATIENT).connect().await.unwrap();
    let payload = format!("\"{}\"", "x".repeat(900_000));
    let large = Append::new(stream("a"), exact(0), vec![event(&payload), event(&payload)]);
    assert_eq!(soon(store.append(large)).await.unwrap(), appended(2, 2));
    let mut session = role.session(&schema).await;
    session.run("SELECT number_events(0, 10, '{10}', '{1,1}', '{1,2}')").await;
    session.run("SELECT number_events(-10, 10, '{10}', array_fill(1, ARRAY[20]), array_fill(1, ARRAY[20]))").await;
    assert_eq!(log(&store).await, [(1, "a".into()), (2, "a".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_role_sees_no_other_schema() {
    let (schema, other) = (Schema::new(), Schema::new());
    schema.store().await.close().await.unwrap();
    other.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    let read = format!("SELECT FROM {}.events", other.0);
    assert_eq!(refusal(&mut role.session(&schema).await, &read).await, FORBIDDEN);
    let outcome = role.options(&other).connect().await;
    assert!(matches!(outcome, Err(ConnectError::MayNotMigrate { .. })), "{outcome:?}");
}

/// A table of the role's own cannot stand before one of the schema's: neither in the statements of the
/// store, nor in its functions when they are called with another search path.
#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_hides_nothing_of_the_schema() {
    let schema = Schema::new();
    let store = schema.store().await;
    let role = Role::new(&schema).await;
    let mut session = role.session(&schema).await;
    session.run("CREATE TEMPORARY TABLE events (LIKE events INCLUDING ALL); SET search_path = pg_temp, public").await;
    session.run("BEGIN").await;
    assert_eq!(store.append_in(&mut session.0, append("a", exact(0), 1)).await.unwrap(), appended(1, 1));
    session.run("COMMIT").await;
    assert_eq!(session.number("SELECT count(*) FROM pg_temp.events").await, 0);
    assert_eq!(log(&store).await.len(), 1);
}

/// Maintenance that R3 does not forbid: the owner forgets old commands.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_may_forget_old_commands_and_nothing_else() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", Expected::Any, 1)).await.unwrap();
    let mut owner = schema.session().await;
    owner.run("DELETE FROM commands WHERE recorded_at < clock_timestamp()").await;
    assert_eq!(owner.number("SELECT count(*) FROM commands").await, 0);
    assert_eq!(refusal(&mut owner, "DELETE FROM events").await, "ES001");
}

/// The rights are exactly those of an application, whatever the role had before; and a role that
/// owns the tables is not made one.
#[tokio::test(flavor = "multi_thread")]
async fn grants_replace_what_the_role_had_and_spare_the_owner() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    let mut owner = schema.session().await;
    owner.run(&format!("GRANT ALL ON events, commands TO {}", role.0)).await;
    owner.run(&format!("SELECT grant_application('{}')", role.0)).await;
    assert_eq!(refusal(&mut role.session(&schema).await, "DELETE FROM commands").await, FORBIDDEN);
    assert_eq!(refusal(&mut owner, "SELECT grant_application(current_user)").await, "22023");
    owner.run("SELECT count(*) FROM events").await;
}

/// Without rights to migrate, a store opens where nothing is missing, and says what is where something is.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_migration_without_the_right_to_apply_it_is_a_typed_error() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    role.options(&schema).connect().await.unwrap().close().await.unwrap();
    let mut owner = schema.session().await;
    owner.run("DELETE FROM _sqlx_migrations WHERE version > 3").await;
    let outcome = role.options(&schema).connect().await;
    let Err(ConnectError::MayNotMigrate { missing, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(missing.first(), Some(&4));
    // No schema at all.
    let nowhere = Schema::new();
    let outcome = role.options(&nowhere).connect().await;
    assert!(matches!(outcome, Err(ConnectError::MayNotMigrate { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_was_migrated_otherwise_is_refused() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    schema.session().await.run("UPDATE _sqlx_migrations SET checksum = '' WHERE version = 2").await;
    let outcome = schema.options().connect().await;
    assert!(matches!(outcome, Err(ConnectError::Migrate(_))), "{outcome:?}");
}

/// A role may have fewer connections than its stores want: a caller that gets none is told so, or waits.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_refuses_are_typed_errors_and_appends_wait_for_one() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    let store = role.options(&schema).patience(IMPATIENT).connect().await.unwrap();
    let patient = role.options(&schema).connect().await.unwrap();
    // The connections of the opening may still be counted.
    let mut owner = schema.session().await;
    let open = format!("SELECT (count(*) = 0)::int::bigint FROM pg_stat_activity WHERE usename = '{}'", role.0);
    owner.until(&open, 1).await;
    let holder = role.session(&schema).await;
    owner.run(&format!("ALTER ROLE {} CONNECTION LIMIT 1", role.0)).await;

    let full = |error: &(dyn std::error::Error + 'static)| {
        let cause = error.downcast_ref::<sqlx::Error>().expect("the driver's error");
        assert_eq!(cause.as_database_error().unwrap().code().as_deref(), Some("53300"));
    };
    let Err(ConnectError::Connect(cause)) = role.options(&schema).connect().await else { panic!("there is no room") };
    full(&cause);
    let Err(es_core::ReadError::Store(cause)) = store.read_log(Position::ZERO, 10).await else { panic!("no room") };
    full(&*cause);
    let lost = append("a", exact(0), 1);
    let outcome = soon(store.append(lost.clone())).await;
    let Err(AppendError::Store(cause)) = outcome else { panic!("{outcome:?}") };
    let unknown = cause.downcast_ref::<OutcomeUnknown>().unwrap();
    assert!(unknown.attempts > 1, "it was tried again");
    full(&*unknown.last);
    drop(holder);
    assert_eq!(soon(patient.append(lost)).await.unwrap(), appended(1, 1));
}

/// After a failover the address may lead to a server that only reads: reads are served, appends wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_become_read_only_serves_reads_and_keeps_appends_waiting() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let role = Role::new(&schema).await;
    let options = || role.options(&schema);
    let store = options().patience(IMPATIENT).connect().await.unwrap();
    store.append(append("a", exact(0), 1)).await.unwrap();
    let mut owner = schema.session().await;
    let kill = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{}'", role.0);
    owner.run(&format!("ALTER ROLE {} SET default_transaction_read_only = on", role.0)).await;
    owner.number(&kill).await;

    let lost = append("a", exact(1), 1);
    let outcome = soon(store.append(lost.clone())).await;
    let Err(AppendError::Store(cause)) = outcome else { panic!("{outcome:?}") };
    let unknown = cause.downcast_ref::<OutcomeUnknown>().unwrap();
    assert!(unknown.attempts > 1, "it was sent again");
    assert_eq!(unknown.last.as_database_error().unwrap().code().as_deref(), Some("25006"));
    assert_eq!(log(&store).await.len(), 1);
    // A store can be opened there too, as long as its schema is up to date.
    let reader = soon(options().connect()).await.unwrap();
    assert_eq!(reader.read_stream(&stream("a"), es_core::Version::ZERO, 9).await.unwrap().len(), 1);

    // The next attempt opens a session anew, which finds the writable server.
    let waiting = tokio::spawn(async move { reader.append(append("b", exact(0), 1)).await });
    owner.run(&format!("ALTER ROLE {} RESET default_transaction_read_only", role.0)).await;
    soon(waiting).await.unwrap().unwrap();
    assert_eq!(soon(store.append(lost)).await.unwrap().version.get(), 2);
}
