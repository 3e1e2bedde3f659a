//! Connections that are encrypted, and servers that are known by their certificates.

use es_core::EventStore;
use es_postgres::{ConnectError, PostgresStore};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{Connection, PgConnection};

use super::{
    own_server::OwnServer,
    server::{append, appended, exact, soon},
};

/// A server that lets only encrypted connections in, with a certificate for `localhost` of an authority that only the
/// file `ca.pem` tells of.
async fn server() -> Option<OwnServer> {
    let mut server = OwnServer::new().await?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    server.write("ca.pem", &authority.pem());
    server.write("data/pg_hba.conf", "hostssl all all 127.0.0.1/32 trust");
    let certificate = server.write("server.pem", &certificate.pem());
    let key = server.write("server.key", &key.serialize_pem());
    let ssl = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    server.start(&ssl, "sslmode=require").await;
    Some(server)
}

/// As managed servers ask for it: `sslmode=require`, or the certificate of their authority in a file.
///
/// Seen to fail where the driver encrypts nothing (`PgSslMode::Disable` whatever the URL says).
#[tokio::test(flavor = "multi_thread")]
async fn a_store_connects_over_tls() {
    let Some(server) = Box::pin(soon(server())).await else { return };
    let ca = server.directory().join("ca.pem");
    let verified = format!("sslmode=verify-full&sslrootcert={}", ca.display());
    for (version, url) in [server.url("sslmode=require"), server.url(""), server.url_at("localhost", &verified)]
        .iter()
        .enumerate()
        .map(|(index, url)| (index as u64, url))
    {
        let store = PostgresStore::options(&format!("{url}&application_name=tls")).connect().await.unwrap();
        let written = soon(store.append(append("a", exact(version), 1))).await.unwrap();
        assert_eq!(written, appended(version + 1, version + 1));
        let mut session = PgConnection::connect(&server.url("sslmode=require")).await.unwrap();
        let plain = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
                       FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tls'";
        let (encrypted, plain): (i64, i64) = sqlx::query_as(plain).fetch_one(&mut session).await.unwrap();
        assert!(encrypted > 0 && plain == 0, "{encrypted} encrypted, {plain} plain");
        store.close().await.unwrap();
    }
}

/// `verify-full` is what its name says: the authority must be known, and the name must be the certificate's.
///
/// Seen to fail where the mode of the URL is not taken over (`PgSslMode::Prefer`): every certificate will do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_right_certificate_is_refused() {
    let Some(server) = Box::pin(soon(server())).await else { return };
    let ca = format!("sslrootcert={}", server.directory().join("ca.pem").display());
    let refused = [
        server.url_at("localhost", "sslmode=verify-full"),
        server.url_at("localhost", "sslmode=verify-ca"),
        server.url_at("127.0.0.1", &format!("sslmode=verify-full&{ca}")),
        server.url("sslmode=disable"),
    ];
    for url in refused {
        let outcome = PostgresStore::connect(&url).await;
        assert!(matches!(outcome, Err(ConnectError::Connect(_))), "{url}: {outcome:?}");
    }
    PostgresStore::connect(&server.url(&format!("sslmode=verify-ca&{ca}"))).await.unwrap();
}
