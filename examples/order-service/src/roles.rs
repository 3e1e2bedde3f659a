//! What a process does: serve, work in the background, or rebuild a read model.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    backend::Backend,
    cli::{From, Http},
    http,
    read_models::ReadModelName,
    run::RunError,
    workers::{Worker, Workers},
};

/// How long the requests in flight may take once the process is told to stop. A query that waits
/// for its read model takes five seconds at most.
const REQUESTS_WITHIN: Duration = Duration::from_secs(6);

/// How long workers may take to stop.
const WORKERS_WITHIN: Duration = Duration::from_secs(2);

/// Serves the API until `shutdown`, with all workers beside it unless they run elsewhere.
///
/// # Errors
/// [`RunError::Io`] when the address cannot be had.
pub async fn serve(backend: &Backend, options: Http, shutdown: CancellationToken) -> Result<(), RunError> {
    let listener = TcpListener::bind(options.listen).await?;
    greet(listener.local_addr()?)?;
    let workers = Workers::start(backend, if options.only_http { Vec::new() } else { Worker::all(backend) });
    let router = http::router(App::new(backend, workers.states()));
    let stop = shutdown.clone().cancelled_owned();
    let mut server = tokio::spawn(async { axum::serve(listener, router).with_graceful_shutdown(stop).await });

    shutdown.cancelled().await;
    // Whoever has started the process may have stopped listening to what it says.
    writeln!(io::stdout(), "draining").ok();
    // The workers go on meanwhile: requests may be waiting for them.
    if timeout(REQUESTS_WITHIN, &mut server).await.is_err() {
        tracing::warn!("requests did not end in time and are cut off");
        server.abort();
    }
    workers.stop(WORKERS_WITHIN).await;
    Ok(())
}

/// Runs `workers` until `shutdown`.
///
/// # Errors
/// [`RunError::Stopped`] when some have stopped for good; the others go on until `shutdown`.
pub async fn work(
    backend: &Backend,
    workers: impl IntoIterator<Item = Worker>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut workers = Workers::start(backend, workers);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = workers.ended() => {}
    }
    let states = workers.states();
    workers.stop(WORKERS_WITHIN).await;
    let stopped = states.stopped();
    if stopped.is_empty() { Ok(()) } else { Err(RunError::Stopped(stopped)) }
}

/// Rebuilds a read model while the old one keeps serving (R12). Interrupted by `shutdown`, it goes
/// on where it was when it is called again.
///
/// # Errors
/// [`RunError::Rebuild`].
pub async fn rebuild(
    backend: &Backend,
    name: ReadModelName,
    from: Option<From>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let source = match from {
        None => backend.source(),
        Some(From::Log) => backend.log_source(),
        Some(From::Kafka) => backend.kafka_source().ok_or(RunError::NoKafka)?,
    };
    let projector = name.projector(source, backend);
    match projector.rebuild(shutdown).await? {
        Some(generation) => {
            let version = generation.version;
            writeln!(io::stdout(), "{} is rebuilt in version {version} and serves", name.as_str())?;
        }
        None => writeln!(io::stdout(), "interrupted; the same command goes on from here")?,
    }
    Ok(())
}

fn greet(address: SocketAddr) -> io::Result<()> {
    let url = format!("http://{address}");
    writeln!(
        io::stdout(),
        r#"listening on {url}

place an order
  curl -i {url}/api/orders --json '{{"userId":"USR-123","items":[{{"productId":"PROD-456","quantity":2,"price":49.99}}],"totalAmount":99.98}}'
drive it (pay, reserve, ship, complete, cancel)
  curl -i -X POST {url}/api/orders/ORD-…/pay
look at it; ?after=<token> waits for a write
  curl {url}/api/orders/ORD-…
  curl {url}/api/orders/ORD-…/events
  curl {url}/api/customers/USR-123/orders
  curl {url}/api/revenue
  curl {url}/api/audit
"#
    )
}
