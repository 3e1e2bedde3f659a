//! Several processes on one file, each in its role, and a rebuild while another process serves.

use std::time::{Duration, Instant};

use evenfold::{
    EventStore, KeyRange, Position, Projection,
    backend::{Documents, Leases},
    service,
    testing::project,
};
use order_service::{
    cli::Parts,
    read_models::{AuditTrail, DailyRevenue, OrderDetails, OrdersByCustomer, Stock},
    rules::Rules,
    service::builder,
};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::service::{Service, program};

#[tokio::test]
async fn each_role_runs_in_a_process_of_its_own() {
    let service = Service::start_in(tempfile::tempdir().unwrap(), &["--only-http"]).await;
    let path = service.directory.path().to_owned();
    let _saga = program(&path, &["saga"]).spawn().unwrap();
    let _revenue = program(&path, &["project", "daily-revenue"]).spawn().unwrap();
    let _others =
        program(&path, &["project", "order-details", "orders-by-customer", "audit-trail", "order-search", "stock"])
            .spawn()
            .unwrap();
    let placed = service.place("USR-123").await;
    service.drive(placed["orderId"].as_str().unwrap(), &["pay"]).await;
    service.until("/api/revenue", |revenue| revenue["days"][0]["captured"] == serde_json::json!(99.98)).await;
}

/// (Seen to fail, after as long as a lease lasts, where workers wait for the leases of a dead process to end by their time.)
#[tokio::test]
async fn r18_after_a_kill_an_acknowledged_order_is_shown_within_a_second_of_the_restart() {
    let mut service = Service::start().await;
    service.place("USR-1").await;
    service.settle().await;
    for _ in 0..2 {
        let placed = service.place("USR-1").await;
        service.signal("-KILL").await;
        let (_, directory) = service.ended().await;
        service = Service::start_in(directory, &[]).await;
        let answers = Instant::now();
        let path = format!("/api/orders/{}", placed["orderId"].as_str().unwrap());
        while service.get(&path).send().await.unwrap().status() != StatusCode::OK {
            assert!(answers.elapsed() < Duration::from_secs(30), "it is not shown at all");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = answers.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
    }
}

#[tokio::test]
async fn a_rebuild_while_orders_are_placed_equals_the_fold_of_the_log() {
    let service = Service::start().await;
    for _ in 0..5 {
        let placed = service.place("USR-1").await;
        service.drive(placed["orderId"].as_str().unwrap(), &["pay"]).await;
    }
    for name in ["order-details", "orders-by-customer", "daily-revenue", "audit-trail", "stock"] {
        let mut rebuild = program(service.directory.path(), &["rebuild", name]).spawn().unwrap();
        let ended = loop {
            let placed = service.place("USR-2").await;
            service.drive(placed["orderId"].as_str().unwrap(), &["pay", "reserve", "cancel"]).await;
            if let Some(status) = rebuild.try_wait().unwrap() {
                break status;
            }
        };
        assert_eq!(ended.code(), Some(0), "{name}");
    }
    service.settle().await;
    let directory = service.interrupt().await;
    equals_the_fold(OrderDetails, &directory).await;
    equals_the_fold(OrdersByCustomer, &directory).await;
    equals_the_fold(DailyRevenue, &directory).await;
    equals_the_fold(AuditTrail, &directory).await;
    equals_the_fold(Stock, &directory).await;
}

async fn equals_the_fold<P: Projection>(projection: P, directory: &TempDir) {
    let parts = Parts { db: Some(directory.path().join("orders.db")), ..Parts::default() };
    let builder = builder(&parts, &Rules::default()).await.unwrap().parts(service::Parts::None);
    let service = builder.start().await.unwrap();
    let mut log = service.store().read_log(Position::ZERO, 100_000).await.unwrap();
    // The saga may have written something more.
    let reached = service.store().reached(P::NAME).await.unwrap();
    log.retain(|event| event.position <= reached);
    let stored = service.store().scan(P::NAME, KeyRange::default(), 100_000).await.unwrap().unwrap();
    let stored = stored.found.into_iter().map(|(key, bytes)| (key, serde_json::from_slice::<Value>(&bytes).unwrap()));
    let folded = project(&projection, &log).unwrap().into_iter();
    let folded = folded.map(|(key, document)| (key, serde_json::to_value(document).unwrap()));
    assert_eq!(stored.collect::<Vec<_>>(), folded.collect::<Vec<_>>(), "{}", P::NAME);
    service.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_together_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, reason) in [
        (&["publish"][..], "there is no Kafka to carry events to"),
        (&["rebuild", "weekly-revenue"], "the service has no read model \"weekly-revenue\""),
        (&["project", "weekly-revenue"], "invalid value 'weekly-revenue'"),
    ] {
        let output = program(directory.path(), arguments).stderr(std::process::Stdio::piped()).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
}

/// Verified beside the running service, and folded as of the first event.
#[tokio::test]
async fn every_command_of_a_service_is_there() {
    let service = Service::start().await;
    let placed = service.place("USR-1").await;
    let id = placed["orderId"].as_str().unwrap();
    service.drive(id, &["pay"]).await;
    service.settle().await;
    let run = async |arguments: &[&str]| {
        let output = program(service.directory.path(), arguments).stdout(std::process::Stdio::piped()).output().await;
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for name in ["order-details", "orders-by-customer", "daily-revenue", "audit-trail"] {
        let (code, summary) = run(&["verify", name, "--json"]).await;
        assert_eq!((code, serde_json::from_str::<Value>(&summary).unwrap()["differing"].as_u64()), (Some(0), Some(0)));
    }
    let (code, first) = run(&["as-of", "order-details", id, "--version", "1"]).await;
    assert_eq!((code, &serde_json::from_str::<Value>(&first).unwrap()["status"]), (Some(0), &"PENDING".into()));
    let (code, readers) = run(&["readers", "--json"]).await;
    assert_eq!((code, readers.lines().count()), (Some(0), 9), "six read models, and the saga's three");
    assert_eq!(run(&["stream", "show", "order-unknown"]).await.0, Some(1));
    assert_eq!(run(&["verify", "weekly-revenue"]).await.0, Some(2));
    service.interrupt().await;
}
