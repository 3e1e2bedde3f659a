//! Certificates of brokers, made for one test.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // One of its own: a certificate whose issuer has its own name is taken for one that signs itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("it signs itself"))
    }

    /// What clients trust, as a file.
    pub(crate) fn write(&self, file: &Path) {
        fs::write(file, self.0.pem()).expect("it can be written");
    }

    /// A key and its certificate for `host`, as Kafka reads them from one file.
    pub(crate) fn certify(&self, host: &str, is_expired: bool, file: &Path) {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, host);
        if is_expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("it is signed");
        fs::write(file, format!("{}{}", key.serialize_pem(), certificate.pem())).expect("it can be written");
    }
}
