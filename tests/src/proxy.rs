//! A TCP proxy between clients and one broker, which cuts, freezes or delays what passes.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::cluster::free_ports;

/// What becomes of that which passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// All connections are closed, and new ones too.
    pub cut: bool,
    /// Nothing passes from clients to the broker. What was sent meanwhile arrives later.
    pub requests_held: bool,
    /// Nothing passes from the broker to clients. What was sent meanwhile arrives later, or never if a cut follows: then the broker has
    /// done what the client does not know of.
    pub answers_held: bool,
    /// How much later each piece arrives, in either direction.
    pub delay: Duration,
}

/// A proxy that works until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    target: watch::Sender<u16>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of this machine. Connections wait until the proxy has a [target](Self::to).
    ///
    /// # Panics
    /// When no port is free.
    pub async fn listen() -> Self {
        let (port, listener) = loop {
            // Another process may take the port first.
            let port = free_ports(1)[0];
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                break (port, listener);
            }
        };
        let (weather, target) = (watch::Sender::new(Weather::default()), watch::Sender::new(0));
        let accepting = tokio::spawn(accept(listener, weather.clone(), target.subscribe()));
        Self { port, weather, target, accepting }
    }

    /// The port to which clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Passes on to this port of this machine from now on.
    pub fn to(&self, port: u16) {
        self.target.send_replace(port);
    }

    /// Changes what becomes of that which passes.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, weather: watch::Sender<Weather>, mut target: watch::Receiver<u16>) {
    // Dropping it ends the connections too.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if weather.borrow().cut {
            continue;
        }
        let weather = weather.subscribe();
        let Ok(port) = target.wait_for(|port| *port > 0).await.map(|port| *port) else { return };
        connections.spawn(async move {
            // A broker that is down refuses, and so does this.
            if let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                connect(client, broker, weather).await;
            }
        });
    }
}

/// Passes on in both directions until one end closes, or the connection is cut.
async fn connect(client: TcpStream, broker: TcpStream, weather: watch::Receiver<Weather>) {
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
    let mut cuts = weather.clone();
    tokio::select! {
        _ = cuts.wait_for(|weather| weather.cut) => {}
        () = pass(from_client, to_broker, weather.clone(), |weather| weather.requests_held) => {}
        () = pass(from_broker, to_client, weather, |weather| weather.answers_held) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    held: fn(&Weather) -> bool,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if weather.wait_for(|weather| !held(weather)).await.is_err() || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
