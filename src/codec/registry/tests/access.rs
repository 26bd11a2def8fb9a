//! Logins and TLS: who is let in, whom the registry is trusted to be, and that nothing tells the password.

use std::io::{Read, Write};
use std::net::TcpListener;

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};

use super::*;
use crate::codec::registry::access::Credentials;
use crate::secret::Secret;

const HUNTER: &str = "hunter2-is-secret";

/// Speaks for a registry: 200 to who says the right thing, else 401 with what they said.
fn respond(stream: &mut (impl Read + Write), expected: Option<&str>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request);
    let said = request
        .lines()
        .find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned));
    let (status, body) = match expected.is_none_or(|expected| said.as_deref() == Some(expected)) {
        true => ("200 OK", json!({ "compatibilityLevel": "BACKWARD" }).to_string()),
        false => (
            "401 Unauthorized",
            format!("go away with your {said:?}, {HUNTER}"),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _gone = stream.write_all(format!("{head}{body}").as_bytes());
}

/// A registry that wants this login. It ends with the test process.
fn guarded(expected: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            respond(&mut stream.unwrap(), expected);
        }
    });
    url
}

/// The same over TLS; and the certificate, which is its own authority.
fn encrypted() -> (String, Vec<u8>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "registry").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    certificate
        .set_not_after(&Asn1Time::days_from_now(9).unwrap())
        .unwrap();
    let names = SubjectAlternativeName::new()
        .ip("127.0.0.1")
        .build(&certificate.x509v3_context(None, None))
        .unwrap();
    certificate.append_extension(names).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    let certificate = certificate.build();

    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls()).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that does not trust us hangs up here.
            if let Ok(mut stream) = acceptor.accept(stream.unwrap()) {
                respond(&mut stream, None);
            }
        }
    });
    (url, certificate.to_pem().unwrap())
}

fn asked(access: &RegistryAccess) -> Result<String> {
    let runtime = Runtime::new().unwrap();
    let registry = Registry::with_access(access, runtime.handle().clone()).unwrap();
    runtime.block_on(registry.compatibility())
}

#[test]
fn the_login_is_sent_and_never_told() {
    let password = |password: &str| Credentials::Password("user".into(), Secret::new(password));
    let token = |token: &str| Credentials::Token(Secret::new(token));
    let basic = format!("Basic {}", base64(&format!("user:{HUNTER}")));
    let bearer = format!("Bearer {HUNTER}");
    for (expected, right, wrong) in [
        (basic, password(HUNTER), Credentials::Nobody),
        (bearer, token(HUNTER), password(HUNTER)),
    ] {
        let url = guarded(Some(String::leak(expected)));
        let with = |login: Credentials| RegistryAccess {
            login,
            ..RegistryAccess::open(&url)
        };
        assert_eq!(asked(&with(right)).unwrap(), "BACKWARD");
        let error = asked(&with(wrong)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("401 Unauthorized") && text.contains("`registry.username`"),
            "{text}"
        );
    }
    // A registry that repeats what it was sent, to somebody whom it does not let in.
    let url = guarded(Some("something else"));
    for login in [password(HUNTER), token(HUNTER)] {
        let access = RegistryAccess {
            login,
            ..RegistryAccess::open(&url)
        };
        let text = format!("{access:?} {:?}", asked(&access).unwrap_err());
        assert!(text.contains("go away with your"), "{text}");
        assert!(
            !text.contains(HUNTER) && !text.contains(&base64(&format!("user:{HUNTER}"))),
            "{text}"
        );
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let (url, pem) = encrypted();
    let named = RegistryAccess {
        ca_pem: Some(pem),
        ..RegistryAccess::open(&url)
    };
    if cfg!(not(feature = "tls")) {
        let runtime = Runtime::new().unwrap();
        let error = Registry::with_access(&named, runtime.handle().clone()).unwrap_err();
        assert!(error.to_string().contains("feature `tls`"), "{error}");
        return;
    }
    assert_eq!(asked(&named).unwrap(), "BACKWARD");
    let text = asked(&RegistryAccess::open(&url)).unwrap_err().to_string();
    assert!(text.contains("registry.ca_file"), "{text}");
    let nonsense = RegistryAccess {
        ca_pem: Some(b"nonsense".to_vec()),
        ..RegistryAccess::open(&url)
    };
    let runtime = Runtime::new().unwrap();
    let error = Registry::with_access(&nonsense, runtime.handle().clone()).unwrap_err();
    assert!(error.to_string().contains("PEM"), "{error}");
}
