//! `cargo run -p order-service`.

/// What one thread allocates for a request is often freed by another one, for which the allocators of some systems make threads wait.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    order_service::main()
}
