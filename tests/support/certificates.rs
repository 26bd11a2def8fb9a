//! A certificate authority of a test's own.

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

/// An authority, and where its certificate is.
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
    pub file: PathBuf,
}

/// The files of a certificate that it has signed.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn builder(name: &str, key: &PKey<Private>) -> (X509Builder, X509Name) {
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    certificate.set_subject_name(&subject).unwrap();
    certificate.set_pubkey(key).unwrap();
    certificate
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    certificate
        .set_not_after(&Asn1Time::days_from_now(9).unwrap())
        .unwrap();
    (certificate, subject)
}

impl Authority {
    pub fn new(dir: &Path, name: &str) -> Self {
        let key = key();
        let (mut certificate, subject) = builder(name, &key);
        certificate.set_issuer_name(&subject).unwrap();
        certificate
            .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        let certificate = certificate.build();
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, certificate.to_pem().unwrap()).unwrap();
        Self {
            key,
            certificate,
            file,
        }
    }

    /// A certificate for 127.0.0.1.
    pub fn sign(&self, dir: &Path, name: &str) -> Certificate {
        let key = key();
        let (mut certificate, _) = builder(name, &key);
        certificate
            .set_issuer_name(self.certificate.subject_name())
            .unwrap();
        let context = certificate.x509v3_context(Some(&self.certificate), None);
        let alternative = SubjectAlternativeName::new()
            .ip("127.0.0.1")
            .build(&context)
            .unwrap();
        certificate.append_extension(alternative).unwrap();
        certificate.sign(&self.key, MessageDigest::sha256()).unwrap();
        let files = Certificate {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate.build().to_pem().unwrap()).unwrap();
        std::fs::write(&files.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        files
    }
}
