//! The order service as a process of its own, for tests that kill it.

fn main() -> std::process::ExitCode {
    order_service::main()
}
