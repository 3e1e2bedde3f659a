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
    let mut rest = &rows[..];
    for part in [
        "All goes well",
        "ms order.placed 99.98: 2 × PROD-LAMP",
        "ms order.paid it is PAYMENT_OK",
        "ms inventory.reserved 2 × PROD-LAMP",
        "ms order.completed it is COMPLETED",
        "ms all is done",
        "The payment is declined",
        "ms it is taken back charge: the card has expired",
        "ms notification.sent mail to USR-EVE: We have cancelled your order: the card has expired.",
        "There is too little in stock",
        "ms payment.refunded 820.00",
        "ms inventory.released 4 × PROD-CHAIR",
        "ms order.cancelled PROD-DESK: 2 pieces are ordered, and 1 are in stock",
        "The shipment fails",
        "ms shipment.failed no carrier goes there",
        "ms all is taken back",
        "It is not paid in time",
        "ms it is taken back paid: not done within 1.5s",
        "ms order.cancelled it was not paid in time",
        "| USR-ADA | COMPLETED | 2 × PROD-LAMP | 99.98 | 5 |",
        "| USR-BEN | CANCELLED | 4 × PROD-CHAIR, 2 × PROD-DESK | 820.00 | 3 |",
        "| PROD-LAMP | 98 | 0 | 2 |",
        "| 970.27 | 870.29 | 99.98 |",
    ] {
        let found = rest.iter().position(|row| row.contains(part));
        rest = &rest[found.unwrap_or_else(|| panic!("{part} is missing in\n{printed}"))..];
    }
    assert_eq!(demo(directory.path()).await, printed, "a second run changes nothing");
}
