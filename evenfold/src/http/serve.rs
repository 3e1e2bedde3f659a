//! An HTTP server for a service, from the first request to the shutdown.

use std::{
    future::{Future, IntoFuture},
    io,
    time::Duration,
};

use axum::Router;
use es_core::{Service, service::ShutdownError};
use tokio::{net::TcpListener, sync::oneshot, time::timeout};

use crate::stop::stop_signal;

/// How long requests may take that were begun before the server stops.
const REQUESTS_WITHIN: Duration = Duration::from_secs(6);

/// How long the parts and the store may take after that. Both together stay below the ten seconds after which Docker
/// kills a container.
const SERVICE_WITHIN: Duration = Duration::from_secs(3);

/// Answers requests until the process gets SIGTERM or SIGINT (Ctrl-C), then ends the service in good order, within ten
/// seconds.
///
/// The server stops taking connections and answers the requests that it has begun, for at most six seconds. Meanwhile the
/// parts of the service continue, because a request may wait for them. Then it calls [`Service::shutdown`].
///
/// ```no_run
/// # use evenfold::{http::{health_routes, serve}, prelude::*};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder("seats", MemoryStore::new()).start().await?;
/// let routes = axum::Router::new().merge(health_routes(&service));
/// serve(&service, tokio::net::TcpListener::bind("127.0.0.1:8080").await?, routes).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ServeError`].
///
/// # Cancel safety
/// Dropping the future stops accepting connections. Requests that have begun continue, and so does the service.
pub async fn serve(service: &Service, listener: TcpListener, routes: Router) -> Result<(), ServeError> {
    serve_until(listener, routes, stop_signal()?).await?;
    Ok(service.shutdown(SERVICE_WITHIN).await?)
}

/// Answers requests until `stop` returns, then those that it has begun, for at most six seconds: the first half of
/// [`serve`], for a program that has other reasons to stop or more to end than its service.
///
/// # Errors
/// The operating system's own, when it refuses connections.
///
/// # Cancel safety
/// As [`serve`].
pub async fn serve_until(
    listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async {
        stop.await;
        stopping.send(()).ok();
    });
    let mut server = server.into_future();
    tokio::select! {
        ended = &mut server => return ended,
        Ok(()) = stopped => {}
    }
    timeout(REQUESTS_WITHIN, server).await.unwrap_or_else(|_| {
        tracing::warn!("requests did not end in time");
        Ok(())
    })
}

/// Why a service did not serve, or did not end in good order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The operating system refuses signals or connections.
    #[error("the operating system refuses signals or connections")]
    Io(#[from] io::Error),
    /// The service did not end in good order.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
}

impl ServeError {
    /// Whether serving again may help: the operating system may have handles and ports again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}
