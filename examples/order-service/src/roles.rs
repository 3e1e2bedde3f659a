//! What a process does: serve, or work in the background.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use evenfold::{CancellationToken, Service, http::serve_until, prometheus::Metrics};
use tokio::net::TcpListener;

use crate::{app::App, cli::Http, http, run::RunError};

/// Serves the API of `app` until `shutdown`.
///
/// # Errors
/// [`RunError::Address`] when it cannot listen.
pub async fn serve(app: App, options: Http, metrics: Metrics, shutdown: CancellationToken) -> Result<(), RunError> {
    let listener = listen(options.listen).await?;
    greet(listener.local_addr()?)?;
    let stops = shutdown.clone();
    let stop = async move {
        shutdown.cancelled().await;
        // The process that started this one may have closed its end of the pipe.
        writeln!(io::stdout(), "draining").ok();
    };
    // The parts continue meanwhile: requests may wait for them.
    let router = http::router(app.until(stops)).merge(metrics.routes());
    Ok(serve_until(listener, router, stop).await?)
}

/// Runs the parts of this process until `shutdown`, and serves its metrics if an address is given.
///
/// # Errors
/// [`RunError::Stopped`] when some have stopped for good; the others continue until `shutdown`. [`RunError::Address`] when
/// it cannot listen there for the metrics.
pub async fn work(
    service: &Service,
    options: Http,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    if let Some(address) = options.metrics {
        let listener = listen(address).await?;
        writeln!(io::stdout(), "metrics on http://{}/metrics", listener.local_addr()?)?;
        tokio::spawn(serve_until(listener, metrics.routes(), shutdown.clone().cancelled_owned()));
    }
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = service.ended() => {}
    }
    let stopped = service.status().await.stopped();
    if stopped.is_empty() { Ok(()) } else { Err(RunError::Stopped(stopped)) }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|cause| RunError::Address { address, cause })
}

fn greet(address: SocketAddr) -> io::Result<()> {
    let url = format!("http://{address}");
    writeln!(
        io::stdout(),
        r#"listening on {url}

place an order
  curl -i {url}/api/orders --json '{{"userId":"USR-123","items":[{{"productId":"PROD-456","quantity":2,"price":49.99}}],"totalAmount":99.98}}'
it goes on by itself; place it at {url}/api/orders?drive=manual to take its steps (pay, reserve, ship, complete, cancel)
  curl -i -X POST {url}/api/orders/ORD-…/pay
look at it; ?after=<token> waits for a write
  curl {url}/api/orders/ORD-…
  curl {url}/api/orders/ORD-…/timeline
  curl {url}/api/orders/ORD-…/events
  curl -N {url}/api/orders/ORD-…/changes
  curl {url}/api/customers/USR-123/orders
  curl {url}/api/stock
  curl {url}/api/revenue
  curl {url}/api/audit
watch it
  curl {url}/metrics
"#
    )
}
