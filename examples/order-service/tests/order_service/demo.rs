//! `order-service demo`.

use crate::service::program;

async fn demo(directory: &std::path::Path) -> String {
    let output = program(directory, &["demo"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_demo_prints_what_has_happened_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let printed = demo(directory.path()).await;
    let rows: Vec<String> = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let has = |part: &str| assert!(rows.iter().any(|row| row.contains(part)), "{part} is missing in\n{printed}");
    has("| USR-ADA | COMPLETED | 2 × PROD-LAMP | 99.98 | 5 |");
    has("| USR-BEN | CANCELLED | 1 × PROD-LAMP, 3 × PROD-BULB | 50.29 | 4 |");
    has("| USR-ADA | SCHEDULED | 1 × PROD-DESK | 250.00 | 4 |");
    has("| USR-BEN | PENDING | 10 × PROD-BULB | 1.00 | 1 |");
    has("| 400.27 | 50.29 | 349.98 |");
    has("| 22 | payment.refunded |");
    has("| 31 | order.placed |");
    assert!(!printed.contains("| 32 "), "{printed}");

    assert_eq!(demo(directory.path()).await, printed, "a second run changes nothing");
}
