//! What clients are let in with stays secret; with an account of its own, each part does its work with few rights.

#[path = "security/acls.rs"]
mod acls;
#[path = "security/broker.rs"]
mod broker;
#[path = "security/certificates.rs"]
mod certificates;
#[path = "security/forwarding.rs"]
mod forwarding;
#[path = "security/refused.rs"]
mod refused;
#[path = "security/rights.rs"]
mod rights;
#[path = "security/secrets.rs"]
mod secrets;
#[path = "security/whole_path.rs"]
mod whole_path;
