//! Injects the faults of a plan.

use std::{io, path::Path, sync::Arc};

use async_trait::async_trait;
use es_testing::checker::{Disruption, Fault, Plan, Recorder};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    ground::{self, Ground},
    process::{Part, Process},
};

/// How long a terminated session may take to end.
const LONG_MS: u64 = 60_000;

/// The server of a run, and its child processes.
pub(crate) struct Faults {
    ground: Ground,
    others: Vec<Process>,
}

impl Faults {
    /// Starts the other processes of the plan.
    pub(crate) async fn prepare(
        plan: &Plan,
        ground: &Ground,
        program: &Path,
        history: &Path,
        recorder: &Arc<Recorder>,
    ) -> io::Result<Self> {
        let mut others = Vec::new();
        for process in 1..plan.size.processes {
            let part = Part {
                seed: plan.seed,
                size: plan.size.clone(),
                ground: ground.clone(),
                history: history.to_owned(),
                process,
            };
            others.push(Process::start(program, part, recorder).await?);
        }
        Ok(Self { ground: ground.clone(), others })
    }

    /// Ends all sessions of the stores, and waits until they are gone.
    async fn cut_sessions(&self) {
        let Ground::Postgres(schema) = &self.ground else { return };
        let cut = format!(
            "SELECT pg_terminate_backend(pid, {LONG_MS}) FROM pg_stat_activity WHERE application_name = '{schema}'"
        );
        let mut session = up_again().await;
        sqlx::raw_sql(AssertSqlSafe(cut)).execute(&mut session).await.expect("sessions can be cut");
    }
}

/// Kills one backend of the server at `DATABASE_URL` with SIGKILL, and returns when the server is up again. After that
/// the server does not trust its shared memory: it ends all sessions and recovers from its log, as after a crash of the
/// whole server.
pub async fn crash_server() {
    let mut victim = up_again().await;
    let before = checkpointer(&mut victim).await.expect("the server is up");
    let dead = sqlx::query("COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'").execute(&mut victim).await;
    dead.expect_err("the backend was killed");
    // Until the postmaster notices, it accepts sessions that it ends a moment later. A new checkpointer process shows that it
    // has noticed.
    loop {
        match checkpointer(&mut up_again().await).await {
            Ok(now) if now != before => return,
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn up_again() -> PgConnection {
    loop {
        match ground::session().await {
            Ok(session) => return session,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn checkpointer(session: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").fetch_one(session).await
}

#[async_trait]
impl Disruption for Faults {
    async fn inject(&self, fault: Fault) {
        match fault {
            Fault::Sessions => self.cut_sessions().await,
            Fault::Server => crash_server().await,
            Fault::Process(process) => {
                let process = self.others.get(process as usize - 1).expect("there is such a process");
                process.kill_and_start_again().await.expect("it can be started again");
            }
        }
    }

    async fn ask(&self) {
        match self.ground {
            Ground::Postgres(_) => drop(up_again().await),
            Ground::Sqlite(_) | Ground::Memory => std::future::pending().await,
        }
    }

    async fn others_done(&self) {
        for process in &self.others {
            process.ended().await.expect("it has done its part");
        }
    }
}
