//! A server that stops: what it has begun is answered, and the service ends after that.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use evenfold::{
    http::{serve_until, stop_signal},
    prelude::*,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Notify, oneshot},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(30);

/// Seen to fail where the server ended with the stop.
#[tokio::test]
async fn a_request_that_has_begun_is_answered_after_the_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits) = (begun.clone(), go_on.clone());
    let slow = async move || {
        begins.notify_one();
        waits.notified().await;
        "done"
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Router::new().route("/slow", get(slow));
    let server = tokio::spawn(serve_until(listener, routes, async { stopped.await.unwrap_or_default() }));

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    begun.notified().await;
    stop.send(()).unwrap();
    // The listener is closed once the server has taken note of the stop.
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!server.is_finished(), "it waits for the request");
    go_on.notify_one();
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
    timeout(SOON, server).await.unwrap().unwrap().unwrap();
}

/// Without a handler SIGTERM would end this test's process. Seen to fail where the service was not shut down.
#[cfg(unix)]
#[tokio::test]
async fn serve_ends_the_service_on_sigterm() {
    let service = Service::builder("empty", MemoryStore::new()).start().await.unwrap();
    // Its handler is there before the signal comes; that of `serve` is the same one for the whole process.
    let first = stop_signal().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = service.clone();
    let server = tokio::spawn(async move {
        evenfold::http::serve(&own, listener, Router::new().route("/", get(async || "here"))).await
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    client.read_to_string(&mut String::new()).await.unwrap();
    assert!(service.is_live());

    let id = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    timeout(SOON, first).await.unwrap();
    timeout(SOON, server).await.unwrap().unwrap().unwrap();
    assert!(!service.is_live());
}
