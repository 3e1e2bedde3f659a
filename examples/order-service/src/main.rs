//! `cargo run -p order-service`.

fn main() -> std::process::ExitCode {
    order_service::main()
}
