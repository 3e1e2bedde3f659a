//! The program `es`.

fn main() -> std::process::ExitCode {
    es_cli::program::main()
}
