//! The order service as a process: built, started, ended.

use std::{env, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::http::Connection;
use crate::{embedded, usage};

/// Where its release build is, as seen from this directory.
const PROGRAM: &str = "../target/release/order-service";

/// Builds it as its users do.
pub(super) async fn build() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "--package", "order-service"]);
    ensure!(build.current_dir("..").status().await?.success(), "the order service cannot be built");
    Ok(())
}

/// A running service.
pub(super) struct Program {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Program {
    /// Starts it on the database of `url`, and returns when it is ready.
    pub(super) async fn start(url: &str) -> Result<Self> {
        let mut command = Command::new(PROGRAM);
        if embedded::is_file(url) {
            command.args(["--db", embedded::path(url)]);
        } else {
            command.args(["--store", url]);
        }
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
        let mut lines = BufReader::new(child.stdout.take().context("a child has an output")?).lines();
        let first = lines.next_line().await?.context("the service has ended")?;
        let address = first.strip_prefix("listening on http://").context("the service names no address")?.parse()?;
        // It must not wait for its output to be read.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut connection = Connection::open(address).await?;
        while connection.get("/readyz").await?.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { child, address })
    }

    /// The processor time that it has used.
    pub(super) fn seconds(&self) -> Option<f64> {
        usage::seconds_of(self.child.id()?)
    }

    /// Ends it in good order.
    pub(super) async fn end(mut self) -> Result<()> {
        let process = self.child.id().context("the service has ended")?;
        let signalled = Command::new("kill").args(["-TERM", &process.to_string()]).status().await?;
        ensure!(signalled.success() && self.child.wait().await?.success(), "the service did not end in good order");
        Ok(())
    }
}
