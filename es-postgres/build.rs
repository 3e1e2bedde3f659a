//! Makes cargo embed a migration that was added.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
